"""JSON and times as the marketplace writes them."""

import json
from datetime import UTC, datetime
from typing import Any


class SimulatorError(Exception):
    """Something the person who started the simulator can put right. The text is one plain line."""


def encode(value: Any) -> bytes:
    """Compact JSON in UTF-8. Lone surrogates, which UTF-8 can't hold, are written as `\\ud800` escapes."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def write_time(moment: datetime) -> str:
    """`2026-01-15T10:30:00.123456Z`: always six digits, so that two changes in one second differ."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def read_time(text: object) -> datetime | None:
    """The aware time of a record, cut at the microsecond; `None` where it has none that can be read."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
