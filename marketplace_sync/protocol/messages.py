"""Decode a WebSocket message: the envelope `{"type", "data", "timestamp"}` and its content."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from marketplace_sync.protocol.events import Change, Heartbeat
from marketplace_sync.protocol.fields import latest_believable
from marketplace_sync.protocol.json_text import decode_error, is_storable, json_type, read_json
from marketplace_sync.protocol.limits import MAX_MESSAGE_BYTES
from marketplace_sync.protocol.message_types import BY_NAME, HEARTBEATS, readable_key
from marketplace_sync.protocol.refusals import Code, DecodeError, Refusal
from marketplace_sync.protocol.typed import skill_update

# The protocol's longest type has 15 characters. Longer ones are cut here before they are shown.
_MAX_KIND_CHARS = 64


def decode_message(
    raw: str | bytes, *, server_now: datetime, max_bytes: int = MAX_MESSAGE_BYTES, is_text: bool = False
) -> Change | Heartbeat:
    """Decode one message. `str` is a text frame; `bytes` is a binary one, which the protocol does not have.

    `is_text`: the bytes are those of a text frame. (msgspec takes twice as long to read `str`.)

    `server_now` (aware) is the server's clock as far as we know it. A time more than `MAX_AHEAD` ahead of it counts as
    none. `max_bytes` limits the size in UTF-8.

    Raises `DecodeError` and nothing else, whatever `raw` is. Its refusal has `kind` and `key` where they can be read,
    also for a message that is binary or too large. Such a message is parsed for them, so the caller limits the size of
    what it passes in. For a `category_update` the key is the category's name, else a `skill_id`.
    """
    size = len(raw) if isinstance(raw, bytes) or raw.isascii() else len(raw.encode("utf-8", "surrogatepass"))
    if isinstance(raw, bytes) and not is_text:
        raise _refused_unread(raw, Code.BINARY, f"a binary frame of {size} bytes; the protocol is text")
    if size > max_bytes:
        raise _refused_unread(raw, Code.TOO_LARGE, f"{size} bytes; at most {max_bytes}")
    if isinstance(raw, bytes) and (record := skill_update(raw, latest_believable(server_now))) is not None:
        return record
    message, doubtful = read_json(raw)
    try:
        return _event(message, doubtful, server_now)
    except DecodeError as refused:
        kind, key = _about(message)
        raise DecodeError(replace(refused.refusal, kind=kind, key=key)) from None


def _event(message: Any, doubtful: bool, server_now: datetime) -> Change | Heartbeat:
    if type(message) is not dict:
        raise decode_error(Code.BAD_TYPE, "", f"must be an object, not {json_type(message)}")
    kind = message.get("type")
    if kind is None:
        raise decode_error(Code.MISSING, "type", "required")
    if type(kind) is not str:
        raise decode_error(Code.BAD_TYPE, "type", f"must be text, not {json_type(kind)}")
    if (heartbeat := HEARTBEATS.get(kind)) is not None:
        return heartbeat
    message_type = BY_NAME.get(kind)
    if message_type is None:
        raise decode_error(Code.UNKNOWN_TYPE, "type", f"the protocol has no type {kind[:_MAX_KIND_CHARS]!r}")
    data = message.get("data")
    if data is None:
        raise decode_error(Code.MISSING, "data", "required")
    if type(data) is not dict:
        raise decode_error(Code.BAD_TYPE, "data", f"must be an object, not {json_type(data)}")
    return message_type.decode(data, message.get("timestamp"), doubtful, latest_believable(server_now))


def _refused_unread(raw: str | bytes, code: Code, reason: str) -> DecodeError:
    try:
        message, _ = read_json(raw)
    except DecodeError:
        return decode_error(code, "", reason)
    kind, key = _about(message)
    return DecodeError(Refusal(code, "", reason, key=key, kind=kind))


def _about(message: Any) -> tuple[str, str | None]:
    """Return the `kind` and `key` of a refused message; "" and `None` where they can't be read."""
    if not isinstance(message, dict):
        return "", None
    kind = message.get("type")
    kind = kind[:_MAX_KIND_CHARS] if isinstance(kind, str) else ""
    return (kind if is_storable(kind) else ""), readable_key(kind, message.get("data"))
