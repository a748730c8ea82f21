"""What we send over the WebSocket: heartbeats, strictly as PROTOCOL.md writes them."""

import json
from datetime import UTC, datetime


def ping_message(now: datetime) -> str:
    """A JSON ping; `now` is our clock, aware."""
    return _heartbeat("ping", now)


def pong_message(now: datetime) -> str:
    """The answer to a JSON ping; `now` is our clock, aware: it is no echo of the ping's."""
    return _heartbeat("pong", now)


def _heartbeat(kind: str, now: datetime) -> str:
    timestamp = now.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return json.dumps({"type": kind, "timestamp": timestamp})
