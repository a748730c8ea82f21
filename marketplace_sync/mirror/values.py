"""Convert values between the database's columns and the types that the planner works on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from marketplace_sync.mirror.dialects import UnreadableRowsError
from marketplace_sync.protocol.json_text import read_json
from marketplace_sync.protocol.stamps import Stamp, to_microseconds

_encode = msgspec.json.Encoder().encode


def json_value(text: str, opening: str) -> Any:
    """Return the value of a JSON column. `opening`: "[" or "{", what the text must begin with.

    Raises `UnreadableRowsError`, or `DecodeError` for a text that is no JSON.
    """
    if text == "[]" == opening + "]":
        return []
    if text == "{}" == opening + "}":
        return {}
    if not text.startswith(opening):
        raise UnreadableRowsError("JSON of another kind")
    return read_json(text.encode())[0]


def json_text(value: Any) -> str:
    """Return the text of a value for a JSON column."""
    return _encode(value).decode() if value else _EMPTY.get(type(value)) or _encode(value).decode()


_EMPTY: dict[type, str] = {list: "[]", dict: "{}"}


def stored_float(value: str | float | None, read_exactly: Callable[[], float]) -> float | None:
    """Return the value of a column of floats (`Dialect.float_column`). `read_exactly` reads the column as it is."""
    if value == "":
        return read_exactly()
    return None if value is None else float(value)


def stored_stamp(text: str | None) -> Stamp | None:
    """Return the stamp of a time column (`Dialect.time_column`)."""
    if text is None:
        return None
    return Stamp(text.rstrip("0").rstrip(".") if "." in text else text)


def moment_value(moment: datetime) -> str:
    """Return an aware `datetime` as a time column of either database takes it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def stamp_value(stamp: Stamp | None) -> str | None:
    """Return a stamp as a time column of either database takes it; `None` for none."""
    return None if stamp is None else to_microseconds(stamp).replace("T", " ")
