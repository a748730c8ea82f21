"""Write and read JSON and times as the marketplace does."""

import json
from datetime import UTC, datetime
from typing import Any


class SimulatorError(Exception):
    """Raised for what the person who started the simulator can fix. The text is one line."""


def encode(value: Any) -> bytes:
    """Return compact JSON in UTF-8. Lone surrogates, which UTF-8 does not have, become `\\ud800` escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def write_time(moment: datetime) -> str:
    """Return `2026-01-15T10:30:00.123456Z`: always six digits, so that two changes in one second differ."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def read_time(text: object) -> datetime | None:
    """Return an aware time, cut at the microsecond; `None` for what is not a time."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
