"""Every input becomes an event of a documented type that a database can store, or `DecodeError`. Nothing else.

`check_input` tries one input on every decoder. It raises for a finding.
"""

import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marketplace_sync.engine.merge import record_fingerprint
from marketplace_sync.protocol.events import (
    CATEGORY_FIELDS,
    RATING_FIELDS,
    SKILL_FIELDS,
    CategoryRecord,
    Change,
    Heartbeat,
    Ping,
    Pong,
    RatingChanged,
    RefusedRow,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_COMMAND_CHARS,
    MAX_DEPTH,
    MAX_FREE_INTEGER,
    MAX_ID_CHARS,
    MAX_INTEGER,
    MAX_LIST_ITEMS,
    MAX_NAME_CHARS,
    MAX_URL_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.message_types import CATEGORY_UPDATE, SKILL_UPDATE, type_of
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError, Refusal
from marketplace_sync.protocol.stamps import moment_of, parse_stamp, stamp_of

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
# The widths of the columns; `test_corpus` compares them with the models.
WIDTHS: Mapping[str, int | None] = {
    "name": MAX_NAME_CHARS, "description": None, "version": MAX_VERSION_CHARS, "code": None,
    "command": MAX_COMMAND_CHARS, "icon_url": MAX_URL_CHARS,
}  # fmt: skip
LIST_FIELDS = ("python_packages", "npm_packages", "tags")
STAMP_CHARS = 64
# PostgreSQL's timestamps begin long before; Django's and Python's with this year.
FIRST_YEAR, LAST_YEAR = 1, 9999


def check_input(data: bytes) -> None:
    """Put `data` to every decoder: as a text frame, as a binary one, and as each of the HTTP bodies."""
    check_message(data.decode("utf-8", "surrogateescape"))
    check_message(data)
    check_bodies(data)


def check_where_it_fits(data: bytes) -> None:
    """Try `data` on the decoder that it seems to be made for, and one in eight on all of them.

    Five decoders that refuse the same bytes as "not JSON" test one thing, not five.
    """
    if not zlib.crc32(data) % 8:
        check_input(data)
    elif b'"type"' in data:
        check_message(data.decode("utf-8", "surrogateescape"))
    elif b'"categor' in data and b'"skill' not in data:
        check_category_page(data)
    elif data.startswith(b"[") or b'"skills"' in data:
        check_skill_page(data)
    else:
        check_single(data)


def check_message(raw: str | bytes) -> None:
    try:
        event = decode_message(raw, server_now=NOW)
    except DecodeError as refused:
        check_refusal(refused.refusal)
        return
    check_event(event)
    if isinstance(event, Ping | Pong):
        return
    message_type = type_of(event)
    message = {"type": message_type.name, "data": message_type.encode(event)}
    again = decode_message(json.dumps(message, ensure_ascii=False), server_now=NOW)
    assert again == event, f"encoded and decoded again, it is {again!r}"


def check_event(event: Change | Heartbeat) -> None:
    match event:
        case SkillRecord():
            check_skill(event)
        case CategoryRecord():
            check_category(event)
        case RatingChanged(skill_id=skill_id, rating=rating, figures=figures, updated=updated):
            check_key(skill_id, MAX_ID_CHARS)
            assert type(rating) is int and 1 <= rating <= 5
            check_fields(figures, RATING_FIELDS)
            check_stamp(updated)
        case SkillDeleted(skill_id=skill_id, deleted=deleted):
            check_key(skill_id, MAX_ID_CHARS)
            check_stamp(deleted)
        case Ping() | Pong():
            pass
        case _:
            raise AssertionError(f"no event: {event!r}")


def check_bodies(raw: bytes) -> None:
    check_single(raw)
    check_skill_page(raw)
    check_category_page(raw)


def check_single(raw: bytes) -> None:
    try:
        skill = decode_skill(raw, server_now=NOW)
    except DecodeError as refused:
        check_refusal(refused.refusal)
    else:
        check_skill(skill)
        assert decode_skill(_encoded(SKILL_UPDATE.encode(skill)), server_now=NOW) == skill


def check_skill_page(raw: bytes) -> None:
    try:
        page = decode_skill_page(raw, server_now=NOW)
    except DecodeError as refused:
        check_refusal(refused.refusal)
    else:
        assert page.rows == len(page.skills) + len(page.refused)
        for total in (page.page, page.page_size, page.total, page.total_pages):
            assert total is None or (type(total) is int and 0 <= total <= MAX_INTEGER)
        for skill in page.skills:
            check_skill(skill)
        check_broken(page.refused)
        assert (
            decode_skill_page(_encoded([*map(SKILL_UPDATE.encode, page.skills)]), server_now=NOW).skills == page.skills
        )


def check_category_page(raw: bytes) -> None:
    try:
        categories = decode_category_page(raw, server_now=NOW)
    except DecodeError as refused:
        check_refusal(refused.refusal)
    else:
        for category in categories.categories:
            check_category(category)
        check_broken(categories.refused)
        rows = _encoded([*map(CATEGORY_UPDATE.encode, categories.categories)])
        assert decode_category_page(rows, server_now=NOW).categories == categories.categories


def check_skill(record: SkillRecord) -> None:
    check_key(record.skill_id, MAX_ID_CHARS)
    assert record.skill_id not in (".", "..")
    check_fields(record.fields, SKILL_FIELDS)
    check_json(record.extra)
    assert not record.extra.keys() & {*SKILL_FIELDS, "skill_id", "updated_at", "created_at", "ratings"} - {
        "remote_created_at"
    }
    assert record.fields["name"].strip()
    check_stamp(record.updated)
    record_fingerprint(record)


def check_category(record: CategoryRecord) -> None:
    check_key(record.name, MAX_CATEGORY_CHARS)
    check_fields(record.fields, CATEGORY_FIELDS)
    check_stamp(record.updated)


def check_fields(fields: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    assert set(fields) <= set(allowed)
    for name, value in fields.items():
        if name in WIDTHS:
            check_text(value, WIDTHS[name])
        elif name in LIST_FIELDS:
            assert type(value) is list and len(value) <= MAX_LIST_ITEMS
            for item in value:
                check_text(item, None)
        elif name == "metadata":
            assert type(value) is dict
            check_json(value)
        elif name == "category":
            assert value is None or value.strip()
            check_text(value or "", MAX_CATEGORY_CHARS)
        elif name == "average_rating":
            assert value is None or (type(value) is float and 0 <= value <= 5)
        elif name == "remote_created_at":
            check_stamp(value)
        else:
            assert name in ("rating_count", "skill_count")
            assert type(value) is int and 0 <= value <= MAX_INTEGER


def check_key(key: str, most: int) -> None:
    check_text(key, most)
    assert key.strip()


def check_text(text: Any, most: int | None) -> None:
    """Check that PostgreSQL can store it: no NUL, no lone surrogate, within its column."""
    assert type(text) is str
    assert most is None or len(text) <= most, f"{len(text)} characters in a column of {most}"
    assert "\0" not in text
    text.encode()


def check_stamp(stamp: str | None) -> None:
    if stamp is None:
        return
    assert parse_stamp(stamp) == stamp
    assert len(stamp) <= STAMP_CHARS
    moment = moment_of(parse_stamp(stamp))
    assert FIRST_YEAR <= moment.year <= LAST_YEAR
    # Cut at the microsecond it is the same or sorts before: a newer stamp is never older in its column.
    assert stamp_of(moment) <= stamp


def check_json(value: Any) -> None:
    """Check that a `jsonb` column returns the value unchanged."""
    written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    written.encode()
    assert "\\u0000" not in written.replace("\\\\", "")
    assert json.loads(written) == value
    check_parts(value, 1)


def check_parts(value: Any, depth: int) -> None:
    assert depth <= MAX_DEPTH
    match value:
        case dict():
            for inner in value.values():
                check_parts(inner, depth + 1)
        case list():
            for inner in value:
                check_parts(inner, depth + 1)
        case int():
            assert abs(value) <= MAX_FREE_INTEGER
        case float():
            # From 2**53 on, `jsonb` returns an integer; and it has no negative zero.
            assert abs(value) < 2**53
            assert str(value) != "-0.0"


def check_refusal(refusal: Refusal) -> None:
    assert refusal.code in Code
    assert refusal.reason
    for text in (refusal.field, refusal.reason, refusal.kind, refusal.key or ""):
        check_text(text, None)
    assert len(refusal.field) <= 200
    assert len(refusal.kind) <= 64
    if refusal.key is not None:
        check_key(refusal.key, max(MAX_ID_CHARS, MAX_CATEGORY_CHARS))


def check_broken(broken: tuple[RefusedRow, ...]) -> None:
    for row in broken:
        check_refusal(row.refusal)
        json.loads(row.raw.decode())


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
