"""Every input becomes an event of a documented type that a database can store, or `DecodeError`. Nothing else."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketplace_sync.protocol.events import SkillRecord
from marketplace_sync.protocol.listing import decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.tests.fuzz.checks import NOW, check_bodies, check_message

# Examples of 100,000 brackets take as long as a busy machine lets them.
unhurried = settings(deadline=None)

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
    """Draw a good row with a few fields replaced, removed or added."""
    row: dict[str, Any] = dict(SKILL)
    row.update(draw(st.dictionaries(names | any_text, values, max_size=3)))
    for name in draw(st.lists(names, max_size=3)):
        row.pop(name, None)
    return row


@st.composite
def mangled(draw: st.DrawFn, text: st.SearchStrategy[str]) -> str:
    """Draw a text with a piece replaced by another."""
    whole = draw(text)
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 20)))
    piece = draw(any_text | st.sampled_from(["NaN", "1e999", "\\ud800", "\\u0000", "[" * 2_000, "9" * 5_000, "\ufeff"]))
    return whole[:start] + piece + whole[end:]


def envelope(kind: Any, data: Any, timestamp: Any, ensure_ascii: bool) -> str:
    return json.dumps({"type": kind, "data": data, "timestamp": timestamp}, ensure_ascii=ensure_ascii)


messages = st.builds(envelope, kinds | values, rows() | values, values, st.booleans())


@unhurried
@given(st.binary(max_size=80) | any_text | mangled(messages))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("1" * 10_000)
def test_any_frame_is_decoded_or_refused(raw):
    check_message(raw)


@unhurried
@given(messages)
def test_any_json_and_any_mutated_message_is_decoded_or_refused(raw):
    check_message(raw)


@unhurried
@given(st.binary(max_size=80) | mangled(messages).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_body_is_decoded_or_refused(raw):
    check_bodies(raw)


@unhurried
@given(
    st.lists(rows() | values, max_size=4), st.booleans(), st.dictionaries(st.sampled_from(["page", "total"]), values)
)
def test_any_row_is_decoded_or_refused_alone(some, bare, about):
    wrapped = some if bare else {**about, "skills": some, "categories": some}
    raw = json.dumps(wrapped, ensure_ascii=False).encode("utf-8", "surrogatepass")
    check_bodies(raw)
    assert decode_skill_page(raw, server_now=NOW).rows == len(some)


@unhurried
@given(rows())
def test_stream_and_listing_decode_a_record_alike(row):
    # Law 1: whichever way it came. The readings differ only in what wraps the record.
    text = json.dumps(row)
    page = decode_skill_page(f"[{text}]".encode(), server_now=NOW)
    streamed: list[SkillRecord] = []
    refused: list[tuple[Code, str, str | None]] = []
    try:
        event = decode_message(f'{{"type": "skill_update", "data": {text}}}', server_now=NOW)
    except DecodeError as error:
        refused.append((error.refusal.code, error.refusal.field, error.refusal.key))
    else:
        assert isinstance(event, SkillRecord)
        streamed.append(event)
    assert list(page.skills) == streamed
    assert [(row.refusal.code, row.refusal.field, row.refusal.key) for row in page.refused] == refused
