"""What to do next, decided without doing it. Pure: no Django, asyncio, sockets or clocks.

`connection` is the state machine of the live stream, `schedule` decides when a full sync begins, `pages` which pages it
reads, `absence` what it removes, `merge` what an event changes, `rates` how fast messages are accepted and requests
sent. `now` is always an argument, in seconds of a monotonic clock; so is randomness.
"""
