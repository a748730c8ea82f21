"""Inputs worth trying: honest messages and pages, and ways to spoil a JSON text that mutated bytes seldom find."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from marketplace_sync.protocol.message_types import BY_NAME, HEARTBEATS

SKILL: dict[str, Any] = {
    "skill_id": "550e8400-e29b-41d4-a716-446655440000", "name": "Send Email", "description": "Sends é.",
    "version": "1.0.0", "code": "def send(): ...", "command": "python", "python_packages": ["pandas>=1.3"],
    "npm_packages": [], "tags": ["email"], "metadata": {"author": "Ada", "deep": {"a": [1, 2.5, None, True]}},
    "category": "automation", "average_rating": 4.5, "rating_count": 42, "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-15T10:30:00.123456789Z", "license": {"spdx": "MIT"},
}  # fmt: skip
CATEGORY: dict[str, Any] = {
    "name": "automation", "description": "Runs without help.", "skill_count": 3, "icon_url": "https://example.com/i.svg",
    "created_at": "2026-01-01T00:00:00+02:00", "updated_at": "2026-01-15 10:30:00,5",
}  # fmt: skip
RATING = {"skill_id": "s1", "rating": 5, "average_rating": "4.5", "rating_count": 43,
          "updated_at": "2026-01-15T10:30:00Z"}  # fmt: skip
DELETED = {"skill_id": "s1", "deleted_at": "2026-01-15T10:30:00Z"}
KINDS = (*BY_NAME, *HEARTBEATS, "hello", "")
NAMES = (*SKILL, *CATEGORY, *RATING, *DELETED, "id", "skill_name", "avg_rating", "ratings", "remote_created_at",
         "type", "data", "timestamp", "skills", "categories", "error", "page", "page_size", "total",
         "total_pages", "\0", "\ud800", "x" * 300)  # fmt: skip
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 5, 6, 10**30, -(10**400), 2**53, 2**256, -(2**256), 0.0, -0.0, 1e23, 1e-320, 1e308,
    4.9999999999999999, float("nan"), float("inf"), "", " ", "\u2003", ".", "..", "0", "5", "4.5", "1e2", "-0", "+1",
    "1_0", "٣", "nan", "Infinity", "\0", "a\0b", "\ud800", "\udfff", "\udcff", "\U0001f600", "e\u0301", "\u202e",
    "<script>", "javascript:alert(1)", "x" * 256, "x" * 401, "y" * 2_001, [], {}, [[]], {"": {}}, ["a"] * 1_001,
    "2026-01-15T10:30:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.9999999Z",
    "2026-02-30T00:00:00Z", "2026-01-15T24:00:00Z", "2026-01-15T10:30:60Z", "2026-01-15T10:30:00.000+0000",
    "2026-01-15T10:30Z", "2026-01-15", "20260115T1030Z", "0000-00-00 00:00:00", "0001-01-01T00:00:00Z", "1,500", "4.",
    "2026-01-15 10:30:00 +0000 UTC", "Thu, 15 Jan 2026 10:30:60 GMT", "9999-12-31T24:00", {"0": "a"}, [None], [7], 1.10,
    "2026-01-15t10:30:00," + "9" * 32 + "z", "2026-01-15T10:30:00." + "0" * 32,
)  # fmt: skip
SPLICES = (b"NaN", b"-Infinity", b"1e999", b"\\ud800", b"\\u0000", b"\\", b'"', b"[" * 70, b'{"a":' * 70, b"]" * 70,
           b"9" * 5_000, b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\0", b"\x1f", b"//", b",", b":", b"0x1",
           b"[" * 5_000, b'["' * 400)  # fmt: skip


def starters() -> Iterator[bytes]:
    """Yield honest inputs of every kind."""
    data_of = {"skill_update": SKILL, "category_update": CATEGORY, "rating_update": RATING, "skill_delete": DELETED}
    for kind, data in data_of.items():
        yield _text({"type": kind, "data": data, "timestamp": "2026-01-15T10:30:00Z"})
    yield _text({"type": "ping", "timestamp": "2026-01-15T10:30:00Z"})
    yield _text({"type": "pong"})
    yield _text({**SKILL, "ratings": [{"rating": 5}]})
    yield _text({"skills": [SKILL, {**SKILL, "skill_id": "s2"}], "page": 1, "page_size": 100, "total": 2,
                 "total_pages": 1})  # fmt: skip
    yield _text({"categories": [CATEGORY]})
    yield _text([{"id": 7, "skill_name": "Seven", "avg_rating": "3"}])
    yield _text([{"category": "data"}])


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """Return the input with a change of its meaning or of its bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _splice(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = rng.choice(_CHANGES)(value, rng)
    try:
        text = _text(value, rng.random() < 0.3)
    except (RecursionError, ValueError):
        return _splice(data, rng)
    return _splice(text, rng) if rng.random() < 0.2 else text


def _text(value: Any, ascii_alone: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_alone).encode("utf-8", "surrogatepass")


def _splice(data: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(data))
    return data[:start] + rng.choice(SPLICES) + data[start + rng.choice((0, 0, 1, 4, 20)) :]


def _replace(value: Any, rng: random.Random) -> Any:
    """Replace the value at a random place."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice([*value])
        return {**value, name: _replace(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], _replace(value[place], rng), *value[place + 1 :]]
    return rng.choice(SCALARS)


def _drop(value: Any, rng: random.Random) -> Any:
    """Drop a field or an item."""
    if isinstance(value, dict) and value:
        name = rng.choice([*value])
        if rng.random() < 0.5:
            return {**value, name: _drop(value[name], rng)}
        return {key: inner for key, inner in value.items() if key != name}
    return value[:-1] if isinstance(value, list) else value


def _add(value: Any, rng: random.Random) -> Any:
    """Add a field or an item."""
    if isinstance(value, dict):
        inner = [name for name, part in value.items() if isinstance(part, dict | list)]
        if inner and rng.random() < 0.6:
            name = rng.choice(inner)
            return {**value, name: _add(value[name], rng)}
        return {**value, rng.choice(NAMES): rng.choice(SCALARS)}
    if isinstance(value, list):
        return [*value, rng.choice((SKILL, CATEGORY, rng.choice(SCALARS)))]
    return value


def _rename(value: Any, rng: random.Random) -> Any:
    """Rename a field."""
    if isinstance(value, dict) and value:
        old, new = rng.choice([*value]), rng.choice(NAMES)
        if isinstance(value[old], dict | list) and rng.random() < 0.7:
            return {**value, old: _rename(value[old], rng)}
        return {(new if name == old else name): part for name, part in value.items()}
    return value


def _retype(value: Any, rng: random.Random) -> Any:
    """Change the type of a message."""
    return {**value, "type": rng.choice(KINDS)} if isinstance(value, dict) else value


def _wrap(value: Any, rng: random.Random) -> Any:
    """Nest the value deeper, or wrap it as another body."""
    match rng.randrange(4):
        case 0:
            return {"skills": [value], "total": rng.choice(SCALARS)}
        case 1:
            return {"type": rng.choice(KINDS), "data": value, "timestamp": rng.choice(SCALARS)}
        case 2:
            return [value]
        case _:
            for _ in range(rng.choice((1, 60, 63, 64, 65, 80))):
                value = {"metadata": value}
            return value


_CHANGES: tuple[Callable[[Any, random.Random], Any], ...] = (
    _replace, _replace, _replace, _drop, _add, _add, _rename, _retype, _wrap,
)  # fmt: skip
