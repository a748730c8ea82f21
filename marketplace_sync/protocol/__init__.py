"""Typed events of what the marketplace sends. Pure: no Django, asyncio, sockets or clocks.

`messages.decode_message` reads one WebSocket message. `listing.decode_skill_page`, `decode_category_page` and
`decode_skill` read HTTP bodies. Each returns frozen events of `events` or raises `DecodeError`, whose `Refusal` has a
code, the field and the reason. docs/protocol.md describes the wire, `message_types` has the table of messages.
"""
