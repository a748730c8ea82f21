"""Read JSON text into plain Python values, and find what no database can store.

There are two readings. The first is msgspec's: fast, strict, and right for all honest input. What it refuses is read
again by Python's more tolerant reader, not to accept bad JSON but to find *where* the error is: then a page loses one
row instead of a hundred, and a message keeps the id by which one fetch can repair it. The second reading marks in place
what it tolerates, and the validation of the fields refuses that like any other error:

- NaN and the infinities become `nan`, integers that are too large become `inf`: both are refused wherever they are
  used;
- lone surrogates stay, and bytes that are not UTF-8 become lone surrogates (PEP 383): both are refused;
- what is nested deeper than in any accepted record is cut away, and what is left is still too deep;
- bare control characters in a text stay: JSON forbids them, but they have only one meaning.

Of a key given twice the last wins, in both readings.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from marketplace_sync.protocol.limits import MAX_DEPTH, MAX_FREE_INTEGER
from marketplace_sync.protocol.refusals import Code, DecodeError, Refusal

# From here on every double is a whole number.
_FIRST_WHOLE = 2.0**53


def number_of_digits(digits: str) -> int | float:
    """Return the value of a number with a fraction or an exponent, as a `jsonb` column returns it.

    PostgreSQL has no negative zero, and writes 1e23 as an integer, which Python then reads as one: it would differ from
    the float. So it is an integer from the start. 1e999 is `inf`.
    """
    value = float(digits)
    return value + 0.0 if abs(value) < _FIRST_WHOLE or math.isinf(value) else int(value)


_decode: Callable[[str | bytes], Any] = msgspec.json.Decoder(float_hook=number_of_digits).decode

# What msgspec raises on a text that it does not read.
NOT_STRICT = (msgspec.MsgspecError, UnicodeError, RecursionError)

# Python refuses to read an integer of more than 4,300 digits. All such are out of range.
_MAX_DIGITS = 4_000
# Brackets deeper than this are left out of the second reading: MAX_DEPTH for the record, and some around it.
_CUT_DEPTH = MAX_DEPTH + 8
# Brackets and quotes of such a text, at 0.4 µs each. Past this many it is refused unread: the reader must not wait.
_MAX_MARKS = 220_000
# A text, a bracket, or what stands between them. Possessive: a text without an end is looked through once.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]|[^"\[\]{}]++', re.DOTALL)

# Values of these types can always be stored, if texts are not doubtful. Most `metadata` has no others.
_ALWAYS_STORABLE = frozenset({str, bool, type(None)})

# A refusal names its place by a path, in which the sender may have chosen the keys.
_MAX_PATH_CHARS = 200
_MAX_PATH_KEY_CHARS = 64


def decode_error(code: Code, field: str, reason: str) -> DecodeError:
    """Return the exception for a refusal without `key` and `kind`. The caller that has the record adds those."""
    return DecodeError(Refusal(code, field[:_MAX_PATH_CHARS], reason))


def json_type(value: object) -> str:
    """Return the JSON name of a value's type, for texts that people read."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            raise TypeError(f"not a JSON value: {value!r}")


def read_json(raw: str | bytes) -> tuple[Any, bool]:
    """Return the value of a JSON text, and whether its texts may have characters that no database stores.

    With `False` the texts need no check: they have no NUL and no lone surrogate.
    Raises `DecodeError`: NOT_JSON, or TOO_DEEP where nothing could be saved.
    """
    try:
        return read_strictly(raw)
    except NOT_STRICT:
        return _second_reading(raw), True


def read_strictly(raw: str | bytes) -> tuple[Any, bool]:
    """Read like `read_json`, by the first reading alone. Raises one of NOT_STRICT where that fails."""
    # msgspec refuses lone surrogates and bare control characters, but accepts escaped NULs.
    return _decode(raw), (b"\\u0000" in raw if isinstance(raw, bytes) else "\\u0000" in raw)


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store `text`: it has no NUL and no lone surrogate."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_storable(value: Any, field: str, doubtful: bool, depth: int = 1) -> None:
    """Raise `DecodeError` unless a `jsonb` column would return `value` unchanged.

    `depth`: the number of containers around `value`, counting the record itself; at most MAX_DEPTH.
    """
    found = _find_unstorable(value, doubtful, depth)
    if found is not None:
        code, path, reason = found
        raise decode_error(code, (field + path).removeprefix("."), reason)


def encode_row(row: Any) -> bytes:
    """Encode a refused row again, for its dead letter, without what is nested too deep. Takes any parsed value."""
    text = json.dumps(_cut(row, MAX_DEPTH + 1), ensure_ascii=False)
    # A lone surrogate can only be in a text, and there this writes the JSON escape of it.
    return text.encode("utf-8", "backslashreplace")


def _find_unstorable(value: Any, doubtful: bool, depth: int) -> tuple[Code, str, str] | None:
    kind = type(value)
    if kind is str:
        if doubtful and not is_storable(value):
            return Code.BAD_CHARACTER, "", "has NUL, a lone surrogate or a byte that is not UTF-8"
    elif kind is int:
        if not -MAX_FREE_INTEGER <= value <= MAX_FREE_INTEGER:
            return Code.OUT_OF_RANGE, "", "an integer of more than 256 bits"
    elif kind is float:
        if math.isnan(value):
            return Code.NOT_JSON, "", "NaN and Infinity are not JSON"
        if math.isinf(value):
            return Code.OUT_OF_RANGE, "", "a number that no database stores"
    elif kind is dict or kind is list:
        if depth >= MAX_DEPTH:
            return Code.TOO_DEEP, "", f"nested deeper than {MAX_DEPTH}"
        if kind is dict and not doubtful and _ALWAYS_STORABLE.issuperset(map(type, value.values())):
            return None
        parts: Iterable[tuple[str | int, Any]] = value.items() if kind is dict else enumerate(value)
        for part, inner in parts:
            if doubtful and isinstance(part, str) and not is_storable(part):
                return Code.BAD_CHARACTER, _step(part), "a key with NUL, a lone surrogate or a byte that is not UTF-8"
            found = _find_unstorable(inner, doubtful, depth + 1)
            if found is not None:
                code, path, reason = found
                return code, (_step(part) + path)[:_MAX_PATH_CHARS], reason
    return None


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    part = part[:_MAX_PATH_KEY_CHARS]
    return f".{part}" if part.isprintable() else f".{part!a}"


def _constant(_: str) -> float:
    return math.nan


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


_lenient = json.JSONDecoder(strict=False, parse_float=number_of_digits, parse_int=_integer, parse_constant=_constant)


def _second_reading(raw: str | bytes) -> Any:
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    text = text.removeprefix("\ufeff")  # a byte order mark, which RFC 8259, 8.1 allows to ignore
    try:
        return _lenient.decode(text)
    except json.JSONDecodeError as error:
        raise decode_error(Code.NOT_JSON, "", f"not JSON: {error}") from None
    except RecursionError:
        pass
    try:
        return _lenient.decode(_shallow(text))
    except ValueError:
        raise decode_error(Code.TOO_DEEP, "", f"nested deeper than {MAX_DEPTH}") from None


def _shallow(text: str) -> str:
    """Return `text` without what lies deeper than `_CUT_DEPTH`. Raises `ValueError` where it has too many brackets."""
    if sum(map(text.count, '[]{}"')) > _MAX_MARKS:
        raise ValueError("too many brackets and quotes")
    kept: list[str] = []
    depth = 0
    for token in _TOKEN.findall(text):
        depth += token in "[{"
        if depth < _CUT_DEPTH or (depth == _CUT_DEPTH and token in "[]{}"):
            kept.append(token)
        depth -= token in "]}"
    return "".join(kept)


def _cut(value: Any, levels: int) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, levels - 1) for key, inner in value.items()} if levels else {}
    if isinstance(value, list):
        return [_cut(inner, levels - 1) for inner in value] if levels else []
    return value
