"""Whatever arrives: an event of the documented types that a database can hold, or `Refused`. Nothing else."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketplace_sync.protocol.events import (
    CATEGORY_FIELDS,
    RATING_FIELDS,
    SKILL_FIELDS,
    BrokenRow,
    CategoryRecord,
    Ping,
    Pong,
    RatingChanged,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.limits import MAX_FREE_INTEGER, MAX_INTEGER
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, Refusal, Refused
from marketplace_sync.protocol.stamps import parse_stamp

# Examples of 100,000 brackets take as long as a busy machine lets them.
unhurried = settings(deadline=None)
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
TEXT_FIELDS = ("name", "description", "version", "code", "command", "icon_url")
LIST_FIELDS = ("python_packages", "npm_packages", "tags")

# With surrogates and NUL, which the default alphabet leaves out.
any_text = st.text(st.characters() | st.sampled_from('\0\ud800\udfff\\"{}[]\u00e9\U0001f600'), max_size=12)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | any_text
    | st.sampled_from([10**400, 2**53, -(2**256), 1e23, -0.0, "4.5", "42", "nan", "", ".", "2026-01-15T10:30:00Z"])
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4), max_leaves=12
)
SKILL = {
    "skill_id": "s1", "name": "One", "description": "d", "version": "1", "code": "c", "command": "python",
    "python_packages": ["a"], "npm_packages": [], "tags": ["t"], "metadata": {"a": {"b": [1]}}, "category": "c",
    "average_rating": 4.5, "rating_count": 42, "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-15T10:30:00Z", "rating": 5, "deleted_at": "2026-01-15T10:30:00.5+02:00", "skill_count": 3,
    "icon_url": "https://example.com/i.png", "ratings": [{}],
}  # fmt: skip
names = st.sampled_from([*SKILL, "id", "skill_name", "avg_rating", "license"])
kinds = st.sampled_from(["skill_update", "category_update", "rating_update", "skill_delete", "ping", "other"])


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """A good row in which a few fields were replaced, removed or added."""
    row: dict[str, Any] = dict(SKILL)
    row.update(draw(st.dictionaries(names | any_text, values, max_size=3)))
    for name in draw(st.lists(names, max_size=3)):
        row.pop(name, None)
    return row


@st.composite
def mangled(draw: st.DrawFn, text: st.SearchStrategy[str]) -> str:
    """A text with a piece replaced by another."""
    whole = draw(text)
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 20)))
    piece = draw(any_text | st.sampled_from(["NaN", "1e999", "\\ud800", "\\u0000", "[" * 2_000, "9" * 5_000, "\ufeff"]))
    return whole[:start] + piece + whole[end:]


def envelope(kind: Any, data: Any, timestamp: Any, ensure_ascii: bool) -> str:
    return json.dumps({"type": kind, "data": data, "timestamp": timestamp}, ensure_ascii=ensure_ascii)


messages = st.builds(envelope, kinds | values, rows() | values, values, st.booleans())


def check_message(raw: str | bytes) -> None:
    try:
        event = decode_message(raw, server_now=NOW)
    except Refused as refused:
        check_refusal(refused.refusal)
        return
    match event:
        case SkillRecord():
            check_skill(event)
        case CategoryRecord():
            check_category(event)
        case RatingChanged(skill_id=skill_id, rating=rating, figures=figures, updated=updated):
            check_key(skill_id)
            assert type(rating) is int
            assert 1 <= rating <= 5
            check_fields(figures, RATING_FIELDS)
            check_stamp(updated)
        case SkillDeleted(skill_id=skill_id, deleted=deleted):
            check_key(skill_id)
            check_stamp(deleted)
        case Ping() | Pong():
            pass
        case _:
            raise AssertionError(f"no event: {event!r}")


def check_skill(record: SkillRecord) -> None:
    check_key(record.skill_id)
    check_fields(record.fields, SKILL_FIELDS)
    check_storable(record.extra)
    assert not record.extra.keys() & {*SKILL_FIELDS, "skill_id", "updated_at", "created_at", "ratings"} - {
        "remote_created_at"
    }
    assert record.fields["name"].strip()
    check_stamp(record.updated)


def check_category(record: CategoryRecord) -> None:
    check_key(record.name)
    check_fields(record.fields, CATEGORY_FIELDS)
    check_stamp(record.updated)


def check_fields(fields: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    assert set(fields) <= set(allowed)
    check_storable(fields)
    for name, value in fields.items():
        if name in TEXT_FIELDS:
            assert type(value) is str
        elif name in LIST_FIELDS:
            assert type(value) is list
            assert all(type(item) is str for item in value)
        elif name == "metadata":
            assert type(value) is dict
        elif name == "category":
            assert value is None or value.strip()
        elif name == "average_rating":
            assert value is None or (type(value) is float and 0 <= value <= 5)
        elif name == "remote_created_at":
            check_stamp(value)
        else:
            assert name in ("rating_count", "skill_count")
            assert type(value) is int
            assert 0 <= value <= MAX_INTEGER


def check_key(key: str) -> None:
    assert type(key) is str
    assert key.strip()
    check_storable(key)


def check_stamp(stamp: str | None) -> None:
    assert stamp is None or parse_stamp(stamp) == stamp


def check_storable(value: Any) -> None:
    written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    written.encode()
    assert "\\u0000" not in written.replace("\\\\", "")
    assert json.loads(written) == value
    check_numbers(value)


def check_numbers(value: Any) -> None:
    match value:
        case dict():
            for inner in value.values():
                check_numbers(inner)
        case list():
            for inner in value:
                check_numbers(inner)
        case int():
            assert abs(value) <= MAX_FREE_INTEGER
        case float():
            # From 2**53 on, `jsonb` gives an integer back.
            assert abs(value) < 2**53


def check_refusal(refusal: Refusal) -> None:
    assert refusal.code in Code
    assert refusal.reason
    check_storable([refusal.field, refusal.reason, refusal.kind, refusal.key])
    assert len(refusal.field) <= 200
    assert len(refusal.kind) <= 64
    if refusal.key is not None:
        check_key(refusal.key)


def check_bodies(raw: bytes) -> None:
    try:
        check_skill(decode_skill(raw, server_now=NOW))
    except Refused as refused:
        check_refusal(refused.refusal)
    try:
        page = decode_skill_page(raw, server_now=NOW)
    except Refused as refused:
        check_refusal(refused.refusal)
    else:
        assert page.rows == len(page.skills) + len(page.broken)
        for skill in page.skills:
            check_skill(skill)
        check_broken(page.broken)
    try:
        categories = decode_category_page(raw, server_now=NOW)
    except Refused as refused:
        check_refusal(refused.refusal)
    else:
        for category in categories.categories:
            check_category(category)
        check_broken(categories.broken)


def check_broken(broken: tuple[BrokenRow, ...]) -> None:
    for row in broken:
        check_refusal(row.refusal)
        json.loads(row.raw.decode())


@unhurried
@given(st.binary(max_size=80) | any_text | mangled(messages))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("1" * 10_000)
def test_any_frame_is_an_event_or_refused(raw):
    check_message(raw)


@unhurried
@given(messages)
def test_any_json_and_any_mutated_message_is_an_event_or_refused(raw):
    check_message(raw)


@unhurried
@given(st.binary(max_size=80) | mangled(messages).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_body_or_refused(raw):
    check_bodies(raw)


@unhurried
@given(
    st.lists(rows() | values, max_size=4), st.booleans(), st.dictionaries(st.sampled_from(["page", "total"]), values)
)
def test_any_rows_are_read_or_set_apart(some, bare, about):
    wrapped = some if bare else {**about, "skills": some, "categories": some}
    raw = json.dumps(wrapped, ensure_ascii=False).encode("utf-8", "surrogatepass")
    check_bodies(raw)
    assert decode_skill_page(raw, server_now=NOW).rows == len(some)


@unhurried
@given(rows())
def test_a_record_is_read_alike_from_the_stream_and_from_a_page(row):
    # Law 1: whichever way it came. The readings differ only in what wraps the record.
    text = json.dumps(row)
    page = decode_skill_page(f"[{text}]".encode(), server_now=NOW)
    streamed: list[SkillRecord] = []
    refused: list[tuple[Code, str, str | None]] = []
    try:
        event = decode_message(f'{{"type": "skill_update", "data": {text}}}', server_now=NOW)
    except Refused as error:
        refused.append((error.refusal.code, error.refusal.field, error.refusal.key))
    else:
        assert isinstance(event, SkillRecord)
        streamed.append(event)
    assert list(page.skills) == streamed
    assert [(row.refusal.code, row.refusal.field, row.refusal.key) for row in page.broken] == refused
