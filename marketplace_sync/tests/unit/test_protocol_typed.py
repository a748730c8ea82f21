"""The fast path returns the same records as the tolerant reading, and is taken."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_sync.protocol import listing, messages, typed
from marketplace_sync.protocol.events import SkillPage, SkillRecord
from marketplace_sync.protocol.fields import latest_believable
from marketplace_sync.protocol.listing import decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.simulator.catalog import generate
from marketplace_sync.simulator.wire import encode
from marketplace_sync.tests.fuzz.checks import NOW
from marketplace_sync.tests.fuzz.test_corpus import inputs

LATEST = latest_believable(NOW)
SKILL = {
    "skill_id": "s1", "name": "Sénd", "description": "d", "version": "1", "code": "c\n\u0001", "command": "python",
    "python_packages": ["a"], "npm_packages": [], "tags": ["skills", "é"], "metadata": {"a": "b", "c": None},
    "category": "c", "average_rating": 4.5, "rating_count": 42,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-15T10:30:00.120Z",
}  # fmt: skip
# JSON texts, so that spellings of numbers, escapes and what is no JSON are among them.
VALUES = [
    "null", "true", "[]", "{}", '""', '" "', '"\\u2003"', '"."', '".."', '"x"', "5", "-0", "-0.0", "0", "0.0", "5.0",
    "5.0000000001", "4.35e0", "1e400", "-1", "42.0", "42.5", "9007199254740991", "9007199254740992", "1e3", "NaN",
    "9" * 30, "9" * 100, "9" * 5_000, '"4.5"', '"42"', '"\\u0000"', '"\\\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"',
    '"\\q"', '"\x01"', '"\0"', "01", '"2026-02-30T00:00:00Z"', '"2026-01-15T10:30:00.000+00:00"',
    '"2026-01-15T12:30:00.5+02:00"', '"2026-01-15 10:30:00"', '"2027-01-01T00:00:00Z"', '"2026-01-15T24:00:00Z"',
    f'"2026-01-15T10:30:00.{"1" * 33}Z"', f'"{"x" * 255}"', f'"{"é" * 256}"', f'"{"x" * 1_001}"', '["a", 1]', '[null]',
    json.dumps(["t"] * 1_001), '{"a": 1e23, "b": -0.0, "c": 1.5}', '{"a": 1e999}', '{"a": {"b": [1, {"c": null}]}}',
    f'{{"a": {"9" * 78}}}', f'{{"a": {"[" * 62 + "]" * 62}}}', f'{{"a": {"[" * 63 + "]" * 63}}}', '{"": "\\u0000"}',
    '{"a": 1, "a": 2}', '{"\\ud800": 1}', '"2026-01-15T10:30Z"', '"2026-01-15T10:30:60Z"', '"0001-01-01T00:00:00Z"',
    '"0000-00-00T00:00:00Z"', '"2026-01-15"', '"2026-01-15T10:30:00+00"', '"Thu, 15 Jan 2026 10:30:00 GMT"', '"1,500"',
    '"4."', '["a", null]', '{"0": "a", "2": "b"}', "1.0", "1.10", "5.0000000000001", "1768473000",
]  # fmt: skip
NAMES = [*SKILL, "id", "skill_name", "avg_rating", "license", "ratings", "remote_created_at", "n\\u0061me", "type"]


@st.composite
def skills(draw: st.DrawFn) -> str:
    """Draw a documented skill as JSON text, with up to three members dropped, moved, changed or added."""
    members = [(name, json.dumps(value)) for name, value in SKILL.items()]
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["set", "set", "add", "drop", "move"])):
            case "set" if members:
                place = draw(st.integers(0, len(members) - 1))
                members[place] = members[place][0], draw(st.sampled_from(VALUES))
            case "drop" if members:
                members.pop(draw(st.integers(0, len(members) - 1)))
            case "move" if members:
                members.append(members.pop(draw(st.integers(0, len(members) - 1))))
            case _:
                members.append((draw(st.sampled_from(NAMES)), draw(st.sampled_from(VALUES))))
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members) + "}"


values = st.sampled_from(VALUES)
envelopes = st.sampled_from(
    [
        '{"type": "skill_update", "data": %s, "timestamp": "2026-01-15T10:30:00Z"}',
        '{"data": %s, "type": "skill_update"}',
        '{"type": "skill_update", "data": {}, "data": %s}',
        '{"type": "skill_delete", "type": "skill_update", "data": %s}',
        '{"type": "skill_update", "type": "skill_delete", "data": %s}',
        '{"type": "skill_update", "data": %s, "timestamp": 5, "seq": 1}',
        '{"type": "skill_update", "data": %s, "timestamp": "\\q"}',
        '{"type": "skill_update", "data": %s} {}',
        '{"type": "rating_update", "data": %s, "timestamp": "skill_update"}',
        '\ufeff{"type": "skill_update", "data": %s}',
    ]
)
pages = st.sampled_from(
    [
        '{"skills": [%s], "page": 1, "page_size": 100, "total": 3.0, "total_pages": "1"}',
        '{"page": 1, "skills": [%s], "more": true}', " [%s]\n", "[%s", "%s]", '{"skills": [%s]}]', '{"skills": %s}',
        '{"skills": [%s], "error": "["}', '{"error": "]", "skills": [%s]}', '{"skills": [%s], "facets": []}',
        '{"skills": ["\\q"], "skills": [%s]}', '{"skills": [%s], "skills": null}', '{"skills": 1, "skills": [%s]}',
        '{"note": "a[b", "skills": [%s]}', '{"skills": [%s], "note": "a]b"}', '{"note": "[%s]"}',
        '{"a": {"skills": [%s]}}',
        '{"skills": [%s], "note": "\\q"}', '{"skills": [%s], "total": 1e999, "page": NaN}', '{"skills": [%s,]}',
        '{"skills": {"x": [%s]}}', '{"skills": 5, "rows": [%s]}',
    ]
)  # fmt: skip


def result_of(decode: Callable[..., Any], raw: bytes, **how: Any) -> str:
    """Return the result of decoding as text, which shows types too: 5 equals 5.0, and -0.0 equals 0."""
    try:
        return repr(exactly(decode(raw, server_now=NOW, **how)))
    except DecodeError as refused:
        return repr(refused.refusal)


def exactly(event: Any) -> Any:
    """Return `event` without the order of a record's fields, which has no meaning."""
    match event:
        case SkillPage():
            return [*map(exactly, event.skills)], replace(event, skills=())
        case SkillRecord():
            return event.skill_id, sorted(event.fields.items()), event.extra, event.updated
    return event


@contextmanager
def tolerant_reading_alone() -> Iterator[None]:
    with (
        patch.object(messages, "skill_update", return_value=None),
        patch.object(listing, "cut_out_rows", return_value=None),
    ):
        yield


def check_message(raw: bytes) -> None:
    with tolerant_reading_alone():
        expected = result_of(decode_message, raw, is_text=True)
    assert result_of(decode_message, raw, is_text=True) == expected


def check_page(raw: bytes) -> None:
    with tolerant_reading_alone():
        expected = result_of(decode_skill_page, raw)
    assert result_of(decode_skill_page, raw) == expected


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@settings(deadline=None, max_examples=400)
@given(envelopes, skills() | values)
def test_a_message_is_read_as_the_tolerant_reading_reads_it(envelope, data):
    check_message(as_bytes(envelope.replace("%s", data)))


@settings(deadline=None, max_examples=400)
@given(pages, st.lists(skills() | values, max_size=4))
def test_a_page_is_read_as_the_tolerant_reading_reads_it(page, rows):
    check_page(as_bytes(page.replace("%s", ",".join(rows))))


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_any_value_in_any_field_is_read_as_the_tolerant_reading_reads_it(value):
    for name in NAMES:
        row = json.dumps(SKILL)[:-1] + f', "{name}": {value}}}'  # given twice: the last one counts
        check_message(as_bytes(f'{{"type": "skill_update", "data": {row}}}'))
        check_page(as_bytes(f'{{"skills": [{json.dumps(SKILL)}, {row}], "page": {value}}}'))


def test_corpus_input_is_read_as_the_tolerant_reading_reads_it():
    for data in inputs():
        check_message(data)
        check_page(data)
        check_page(b"[" + data + b"]")


def test_documented_input_takes_the_fast_path():
    for skill in (SKILL, {"skill_id": "s", "name": "n"}, {**SKILL, "average_rating": None, "updated_at": None}):
        message = json.dumps({"type": "skill_update", "data": skill, "timestamp": "2026-01-15T10:30:00Z"}).encode()
        assert typed.skill_update(message, LATEST) == decode_message(message.decode(), server_now=NOW)
        assert typed.skill_row(json.dumps(skill).encode(), LATEST) is not None
    page = json.dumps({"skills": [SKILL, SKILL], "page": 1, "total": 2, "total_pages": 1}).encode()
    found = typed.cut_out_rows(page, "skills")
    assert found is not None
    assert found[0] == {"skills": [], "page": 1, "total": 2, "total_pages": 1}
    assert [json.loads(bytes(row)) for row in found[1]] == [SKILL, SKILL]


def test_refused_row_leaves_the_others_on_the_fast_path():
    row = json.dumps(SKILL).encode()
    with patch.object(listing, "skill_record", wraps=listing.skill_record) as tolerant:
        page = decode_skill_page(b"[" + b", ".join([row, b'{"name": 3}', row]) + b"]", server_now=NOW)
    assert (len(page.skills), len(page.refused), tolerant.call_count) == (2, 1, 1)


def test_page_of_undocumented_rows_soon_skips_the_fast_path():
    row = json.dumps({**SKILL, "license": "MIT"}).encode()
    with patch.object(listing, "skill_row", wraps=listing.skill_row) as short:
        page = decode_skill_page(b"[" + b", ".join([row] * 100) + b"]", server_now=NOW)
    assert len(page.skills) == 100
    assert short.call_count == listing._MAX_MISSED


def test_simulator_messages_take_the_fast_path():
    for skill in generate(50, 1, NOW).skills:
        assert typed.skill_row(encode(skill), LATEST) is not None
