"""One reader per kind of field: tolerant about spelling, strict about meaning.

A reader takes `(value, field, doubtful)`: the parsed JSON value, the name for errors, and whether texts may have
characters that no database stores (see `json_text.read_json`). It returns the value in the mirror's own type or raises
`DecodeError`. Null is the field's empty value.

Some servers change a field's format with its value; strictness would refuse a part of their catalogue for good. So
forms with one meaning are read: PHP and Lua write an empty object as `[]`, an empty list as `{}`, and a list with gaps
as `{"0": "a", "2": "b"}`; SQL returns `[null]` for no tags; YAML turns the version `1.0` into a number; a formatted
count is "1,500", or "" where there is none. A text where a list is documented is refused: a comma may be part of a tag.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from marketplace_sync.protocol.json_text import check_storable, decode_error, is_storable, json_type
from marketplace_sync.protocol.limits import (
    MAX_AHEAD,
    MAX_CATEGORY_CHARS,
    MAX_ID_CHARS,
    MAX_INTEGER,
    MAX_LIST_ITEMS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.protocol.stamps import NoTimeError, Stamp, parse_stamp

Reader = Callable[[Any, str, bool], Any]

# JSON's grammar of a number, for numbers sent as text; digits may be missing on one side of the point. Every double
# fits into 64 characters.
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_MAX_NUMBER_CHARS = 64
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+", re.ASCII)
# An average computed with doubles may be this far outside its range.
_ROUNDING = 1e-6
# Ids that no URL can have: clients and proxies resolve them as path segments (RFC 3986, 5.2.4).
DOT_SEGMENTS = frozenset({".", ".."})
_END_OF_TIME = "9999-12-31T24"  # sorts after every stamp


def text(max_chars: int | None = None) -> Reader:
    """Make a reader of optional text of at most `max_chars` characters; null is ""."""

    def read(value: Any, field: str, doubtful: bool) -> str:
        return "" if value is None else _text(value, field, doubtful, max_chars)

    return read


def required_text(max_chars: int) -> Reader:
    """Make a reader of text that must be present and not blank. Spaces are kept."""

    def read(value: Any, field: str, doubtful: bool) -> str:
        if value is None:
            raise decode_error(Code.MISSING, field, "required")
        read_text = _text(value, field, doubtful, max_chars)
        if not read_text or read_text.isspace():
            raise decode_error(Code.BLANK, field, "must not be blank")
        return read_text

    return read


_id_text = required_text(MAX_ID_CHARS)


def skill_id(value: Any, field: str, doubtful: bool) -> str:
    """Read an id as text; an integer becomes its decimal digits."""
    if type(value) is int:
        value = str(value)  # always possible: `read_json` returns no integer that Python can't write
    read_id: str = _id_text(value, field, doubtful)
    if read_id in DOT_SEGMENTS:
        raise decode_error(Code.BAD_ID, field, f"{read_id!r} cannot be part of a URL")
    return read_id


def category_name(value: Any, field: str, doubtful: bool) -> str | None:
    """Read the name of a skill's category; `None` when null or blank."""
    if value is None:
        return None
    name = _text(value, field, doubtful, MAX_CATEGORY_CHARS)
    return name if name and not name.isspace() else None


def version(value: Any, field: str, doubtful: bool) -> str:
    """Read a version as text; null is "". A number becomes its digits."""
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        value = str(value)
    return "" if value is None else _text(value, field, doubtful, MAX_VERSION_CHARS)


def text_list(value: Any, field: str, doubtful: bool) -> list[str]:
    """Read a list of texts; null is an empty one. An integer in it becomes its digits, a null is left out."""
    if type(value) is dict and all(key.isascii() and key.isdecimal() for key in value):
        value = [*value.values()]
    if value is None or value == "":
        return []
    if type(value) is not list:
        raise decode_error(Code.BAD_TYPE, field, f"must be a list of texts, not {json_type(value)}")
    if len(value) > MAX_LIST_ITEMS:
        raise decode_error(Code.TOO_LONG, field, f"more than {MAX_LIST_ITEMS} items")
    sound = True
    for index, item in enumerate(value):
        if type(item) is not str or doubtful:
            if item is None or type(item) is int:
                sound = False
            else:
                _text(item, f"{field}[{index}]", doubtful, None)
    return value if sound else [str(item) for item in value if item is not None]


def json_object(value: Any, field: str, doubtful: bool) -> dict[str, Any]:
    """Read any JSON object; null, an empty list and an empty text are an empty one."""
    if value is None or value == [] or value == "":
        return {}
    if type(value) is not dict:
        raise decode_error(Code.BAD_TYPE, field, f"must be an object, not {json_type(value)}")
    check_storable(value, field, doubtful)
    return value


def average_rating(value: Any, field: str, doubtful: bool) -> float | None:
    """Read stars, 0 to 5, as a float; `None` when null: not rated yet."""
    if value is None or value == "":
        return None
    return min(max(_number(value, field, 0, 5, _ROUNDING), 0), 5) + 0.0  # a float, and not -0.0


def count(value: Any, field: str, doubtful: bool) -> int:
    """Read a whole number from 0 on; null is 0. A text may have commas between its thousands."""
    if value is None or value == "":
        return 0
    if type(value) is str and len(value) <= _MAX_NUMBER_CHARS and _THOUSANDS.fullmatch(value.strip()):
        value = value.replace(",", "")
    return _whole(value, field, 0, MAX_INTEGER)


def vote(value: Any, field: str, doubtful: bool) -> int:
    """Read one person's rating, 1 to 5; required."""
    if value is None:
        raise decode_error(Code.MISSING, field, "required")
    return _whole(value, field, 1, 5)


def total(value: Any, least: int) -> int | None:
    """Read a total of a page; `None` where it is absent or impossible, because paging works without it."""
    if value is None:
        return None
    try:
        return _whole(value, "", least, MAX_INTEGER)
    except DecodeError:
        return None


def time(value: Any, field: str) -> Stamp | None:
    """Read a server time; `None` when null, empty or a zero date."""
    if value is None:
        return None
    if type(value) is not str:
        raise decode_error(Code.BAD_TIME, field, f"must be an ISO 8601 time, not {json_type(value)}")
    try:
        return parse_stamp(value)
    except NoTimeError:
        return None
    except ValueError as error:
        raise decode_error(Code.BAD_TIME, field, str(error)) from None


def readable_time(value: Any) -> Stamp | None:
    """Read a server time that decides nothing; `None` also when it can't be read."""
    try:
        return time(value, "")
    except DecodeError:
        return None


# All messages of one turn of the reader have the same argument; computing it takes 1.4 µs.
@lru_cache(maxsize=8)
def latest_believable(server_now: datetime) -> str:
    """Return MAX_AHEAD after `server_now` (aware), to compare stamps with: one that sorts after it is too far ahead."""
    try:
        return (server_now + MAX_AHEAD).astimezone(UTC).replace(tzinfo=None).isoformat()
    except OverflowError:  # the server's clock is at the end of the year 9999: nothing is ahead of it
        return _END_OF_TIME


def believable_time(value: Any, field: str, latest: str) -> Stamp | None:
    """Read a time that decides which record wins; `None` when there is none, or when it lies too far ahead.

    One that can't be read is refused. A record without a time ties with what is stored, so if a server changed the
    format of all its times, each of its records would be the newest and nobody would notice.
    """
    stamp = time(value, field)
    return None if stamp is None or stamp > latest else stamp


def _text(value: Any, field: str, doubtful: bool, max_chars: int | None) -> str:
    if type(value) is not str:
        raise decode_error(Code.BAD_TYPE, field, f"must be text, not {json_type(value)}")
    if max_chars is not None and len(value) > max_chars:
        raise decode_error(Code.TOO_LONG, field, f"{len(value)} characters; at most {max_chars}")
    if doubtful and not is_storable(value):
        raise decode_error(Code.BAD_CHARACTER, field, "has NUL, a lone surrogate or a byte that is not UTF-8")
    return value


def _number(value: Any, field: str, low: int, high: int, beyond: float = 0) -> int | float:
    if type(value) is str:
        value = value.strip()
        if len(value) > _MAX_NUMBER_CHARS or _NUMBER.fullmatch(value) is None:
            raise decode_error(Code.BAD_TYPE, field, f"not a number: {value[:_MAX_NUMBER_CHARS]!a}")
        value = float(value)  # exact for every whole number up to MAX_INTEGER
    elif type(value) is not int and type(value) is not float:
        raise decode_error(Code.BAD_TYPE, field, f"must be a number, not {json_type(value)}")
    if type(value) is float and math.isnan(value):
        raise decode_error(Code.NOT_JSON, field, "NaN and Infinity are not JSON")
    if not low - beyond <= value <= high + beyond:
        raise decode_error(Code.OUT_OF_RANGE, field, f"must be from {low} to {high}")
    number: int | float = value
    return number


def _whole(value: Any, field: str, low: int, high: int) -> int:
    number = _number(value, field, low, high)
    if number != int(number):
        raise decode_error(Code.BAD_TYPE, field, "must be a whole number")
    return int(number)
