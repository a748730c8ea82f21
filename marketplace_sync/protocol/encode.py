"""Encode the heartbeats, the only messages that the mirror sends over the WebSocket."""

import json
from datetime import UTC, datetime


def ping_message(now: datetime) -> str:
    """Return a JSON ping; `now` is our clock, aware."""
    return _heartbeat("ping", now)


def pong_message(now: datetime) -> str:
    """Return the answer to a JSON ping; `now` is our clock, aware. It does not repeat the ping's time."""
    return _heartbeat("pong", now)


def _heartbeat(kind: str, now: datetime) -> str:
    timestamp = now.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    return json.dumps({"type": kind, "timestamp": timestamp})
