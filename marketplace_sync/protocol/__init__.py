"""What the marketplace speaks, as typed values. Pure: no Django, asyncio, sockets or clocks.

`decode_message` reads one WebSocket message, `decode_skill_page`, `decode_category_page` and
`decode_skill` read HTTP bodies. Each gives frozen events of `events`, or refuses with a
`Refusal` of `refusals` that carries a code, the field and the reason.
"""
