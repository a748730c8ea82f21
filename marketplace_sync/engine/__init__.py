"""What to do next, decided without doing it. Pure: no Django, asyncio, sockets or clocks.

`connection` is the machine behind the live stream, `schedule` says when a full pass is begun,
`rates` how fast messages are taken and requests sent. `now` is everywhere an argument: seconds of
a monotonic clock, as floats; so is randomness.
"""
