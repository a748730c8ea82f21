"""What is refused, with which code, field, key and kind: one table, and every code is in it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from marketplace_sync.protocol.events import Ping, SkillDeleted, SkillRecord
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_DEPTH,
    MAX_FREE_INTEGER,
    MAX_ID_CHARS,
    MAX_INTEGER,
    MAX_LIST_ITEMS,
    MAX_MESSAGE_BYTES,
    MAX_NAME_CHARS,
    MAX_URL_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError, Refusal

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


def skill(**data: Any) -> str:
    return message("skill_update", **{"skill_id": "s1", "name": "One", **data})


def message(kind: Any, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data, "timestamp": "2026-01-15T12:00:00Z"})


def raw_skill(metadata: str) -> str:
    """Return a skill_update with `metadata` as JSON text, for what `json.dumps` would not write."""
    return '{"type": "skill_update", "data": {"skill_id": "s1", "name": "One", "metadata": %s}}' % metadata  # noqa: UP031


def refusal_of(raw: str | bytes, **options: Any) -> Refusal:
    with pytest.raises(DecodeError) as caught:
        decode_message(raw, server_now=NOW, **options)
    assert str(caught.value) == str(caught.value.refusal)
    return caught.value.refusal


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# name: (raw message, code, field, key, kind)
REFUSED: dict[str, tuple[str | bytes, Code, str, str | None, str]] = {
    "over the limit": (skill(code="x" * MAX_MESSAGE_BYTES), Code.TOO_LARGE, "", "s1", "skill_update"),
    "over the limit in bytes, not in characters": (
        json.dumps({"type": "ping", "x": "é" * (MAX_MESSAGE_BYTES // 2)}, ensure_ascii=False),
        Code.TOO_LARGE, "", None, "ping",
    ),
    "over the limit and no JSON": ("x" * (MAX_MESSAGE_BYTES + 1), Code.TOO_LARGE, "", None, ""),
    "a binary frame": (skill().encode(), Code.BINARY, "", "s1", "skill_update"),
    "a binary frame of rubbish": (b"\xff\x00", Code.BINARY, "", None, ""),
    "nothing": ("", Code.NOT_JSON, "", None, ""),
    "HTML": ("<html></html>", Code.NOT_JSON, "", None, ""),
    "cut short": (skill()[:-1], Code.NOT_JSON, "", None, ""),
    "more after the end": (skill() + "{}", Code.NOT_JSON, "", None, ""),
    "NaN": (raw_skill('{"a": NaN}'), Code.NOT_JSON, "metadata.a", "s1", "skill_update"),
    "minus Infinity": (skill(average_rating=float("-inf")), Code.NOT_JSON, "average_rating", "s1", "skill_update"),
    "one level too deep": (
        skill(metadata={"a": nested(MAX_DEPTH - 1)}), Code.TOO_DEEP, "metadata.a" + "[0]" * (MAX_DEPTH - 2), "s1",
        "skill_update",
    ),
    "an unknown field one level too deep": (
        skill(other=nested(MAX_DEPTH)), Code.TOO_DEEP, "other" + "[0]" * (MAX_DEPTH - 1), "s1", "skill_update",
    ),
    "100,000 brackets in metadata": (
        raw_skill('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"), Code.TOO_DEEP,
        "metadata.a" + "[0]" * (MAX_DEPTH - 2), "s1", "skill_update",
    ),
    "100,000 brackets and no end": ("[" * 100_000, Code.TOO_DEEP, "", None, ""),
    "too many brackets to look at": (
        raw_skill('{"a":' * 60_000 + "1" + "}" * 60_000), Code.TOO_DEEP, "", None, "",
    ),
    "a list": ("[]", Code.BAD_TYPE, "", None, ""),
    "a type that is no text": (message(["skill_update"], skill_id="s1"), Code.BAD_TYPE, "type", "s1", ""),
    "data that is no object": ('{"type": "skill_update", "data": "s1"}', Code.BAD_TYPE, "data", None, "skill_update"),
    "description a number": (skill(description=4), Code.BAD_TYPE, "description", "s1", "skill_update"),
    "tags a text": (skill(tags="email"), Code.BAD_TYPE, "tags", "s1", "skill_update"),
    "a fraction among the tags": (skill(tags=["a", 3.1]), Code.BAD_TYPE, "tags[1]", "s1", "skill_update"),
    "tags by name": (skill(tags={"a": "b"}), Code.BAD_TYPE, "tags", "s1", "skill_update"),
    "metadata a list": (skill(metadata=[1]), Code.BAD_TYPE, "metadata", "s1", "skill_update"),
    "a version that is a boolean": (skill(version=True), Code.BAD_TYPE, "version", "s1", "skill_update"),
    "commas that part no thousands": (skill(rating_count="1,50"), Code.BAD_TYPE, "rating_count", "s1", "skill_update"),
    "a decimal comma": (skill(average_rating="4,5"), Code.BAD_TYPE, "average_rating", "s1", "skill_update"),
    "category an object": (skill(category={"name": "x"}), Code.BAD_TYPE, "category", "s1", "skill_update"),
    "a boolean for stars": (skill(average_rating=True), Code.BAD_TYPE, "average_rating", "s1", "skill_update"),
    "a word for stars": (skill(average_rating="good"), Code.BAD_TYPE, "average_rating", "s1", "skill_update"),
    "the text nan for stars": (skill(average_rating="nan"), Code.BAD_TYPE, "average_rating", "s1", "skill_update"),
    "an underscore in a number": (skill(rating_count="1_0"), Code.BAD_TYPE, "rating_count", "s1", "skill_update"),
    "half a rating counted": (skill(rating_count=4.5), Code.BAD_TYPE, "rating_count", "s1", "skill_update"),
    "a vote of 4.5": (message("rating_update", skill_id="s1", rating=4.5), Code.BAD_TYPE, "rating", "s1",
                      "rating_update"),
    "a vote of true": (message("rating_update", skill_id="s1", rating=True), Code.BAD_TYPE, "rating", "s1",
                       "rating_update"),
    "an id that is a boolean": (message("skill_delete", skill_id=True), Code.BAD_TYPE, "skill_id", None,
                                "skill_delete"),
    "an id that is a fraction": (message("skill_delete", skill_id=1.5), Code.BAD_TYPE, "skill_id", None,
                                 "skill_delete"),
    "no type": ('{"data": {"skill_id": "s1"}}', Code.MISSING, "type", "s1", ""),
    "no data": ('{"type": "skill_delete"}', Code.MISSING, "data", None, "skill_delete"),
    "no id": (message("skill_update", name="One"), Code.MISSING, "skill_id", None, "skill_update"),
    "a null id": (skill(skill_id=None), Code.MISSING, "skill_id", None, "skill_update"),
    "no name": (message("skill_update", id="s1"), Code.MISSING, "name", "s1", "skill_update"),
    "a null name": (skill(name=None), Code.MISSING, "name", "s1", "skill_update"),
    "no vote": (message("rating_update", skill_id="s1", average_rating=4), Code.MISSING, "rating", "s1",
                "rating_update"),
    "a category without a name": (message("category_update", skill_id="s1"), Code.MISSING, "name", None,
                                  "category_update"),
    "a blank id": (skill(skill_id=" "), Code.BLANK, "skill_id", None, "skill_update"),
    "an empty name": (skill(name=""), Code.BLANK, "name", "s1", "skill_update"),
    "a blank category": (message("category_update", name="\t"), Code.BLANK, "name", None, "category_update"),
    "an id too long": (skill(skill_id="x" * (MAX_ID_CHARS + 1)), Code.TOO_LONG, "skill_id", None, "skill_update"),
    "an id of 4,300 digits": (
        '{"type": "skill_delete", "data": {"id": 1%s}}' % ("0" * 4_299), Code.TOO_LONG, "skill_id", None,
        "skill_delete",
    ),
    "a name too long": (skill(name="x" * (MAX_NAME_CHARS + 1)), Code.TOO_LONG, "name", "s1", "skill_update"),
    "a version too long": (skill(version="1" * (MAX_VERSION_CHARS + 1)), Code.TOO_LONG, "version", "s1",
                           "skill_update"),
    "a category's name too long": (skill(category="x" * (MAX_CATEGORY_CHARS + 1)), Code.TOO_LONG, "category", "s1",
                                   "skill_update"),
    "an icon's URL too long": (
        message("category_update", name="c", icon_url="h" * (MAX_URL_CHARS + 1)), Code.TOO_LONG, "icon_url", "c",
        "category_update",
    ),
    "too many tags": (skill(tags=["t"] * (MAX_LIST_ITEMS + 1)), Code.TOO_LONG, "tags", "s1", "skill_update"),
    "NUL in a text": (skill(code="a\0b"), Code.BAD_CHARACTER, "code", "s1", "skill_update"),
    "NUL in a tag": (skill(tags=["a", "\0"]), Code.BAD_CHARACTER, "tags[1]", "s1", "skill_update"),
    "NUL in metadata": (skill(metadata={"a": ["\0"]}), Code.BAD_CHARACTER, "metadata.a[0]", "s1", "skill_update"),
    "NUL in a key": (skill(metadata={"a\0": 1}), Code.BAD_CHARACTER, r"metadata.'a\x00'", "s1", "skill_update"),
    "NUL in an unknown field's name": (skill(**{"a\0": 1}), Code.BAD_CHARACTER, r"'a\x00'", "s1", "skill_update"),
    "NUL in an id": (skill(skill_id="s\0"), Code.BAD_CHARACTER, "skill_id", None, "skill_update"),
    "NUL in the name of a category": (message("category_update", name="\0c"), Code.BAD_CHARACTER, "name", None,
                                      "category_update"),
    "a lone surrogate escaped": (skill(name="\ud800"), Code.BAD_CHARACTER, "name", "s1", "skill_update"),
    "a lone surrogate as it is": ('{"type": "skill_update", "data": {"skill_id": "s1", "name": "\udc00"}}',
                                  Code.BAD_CHARACTER, "name", "s1", "skill_update"),
    "a lone surrogate in an unknown field": (skill(other={"\udfff": 1}), Code.BAD_CHARACTER, r"other.'\udfff'", "s1",
                                             "skill_update"),
    "six stars": (skill(average_rating=6), Code.OUT_OF_RANGE, "average_rating", "s1", "skill_update"),
    "stars below none": (skill(average_rating="-0.5"), Code.OUT_OF_RANGE, "average_rating", "s1", "skill_update"),
    "a vote of 0": (message("rating_update", skill_id="s1", rating=0), Code.OUT_OF_RANGE, "rating", "s1",
                    "rating_update"),
    "a vote of 6": (message("rating_update", skill_id="s1", rating="6"), Code.OUT_OF_RANGE, "rating", "s1",
                    "rating_update"),
    "a count below 0": (skill(rating_count=-1), Code.OUT_OF_RANGE, "rating_count", "s1", "skill_update"),
    "a count past all columns": (skill(rating_count=MAX_INTEGER + 1), Code.OUT_OF_RANGE, "rating_count", "s1",
                                 "skill_update"),
    "a count of 5,000 digits": (
        '{"type": "skill_update", "data": {"skill_id": "s1", "name": "n", "rating_count": %s}}' % ("9" * 5_000),
        Code.OUT_OF_RANGE, "rating_count", "s1", "skill_update",
    ),
    "10**400 in metadata": (skill(metadata={"a": 10**400}), Code.OUT_OF_RANGE, "metadata.a", "s1", "skill_update"),
    "257 bits in metadata": (skill(metadata={"a": -MAX_FREE_INTEGER - 1}), Code.OUT_OF_RANGE, "metadata.a", "s1",
                             "skill_update"),
    "10**400 in an unknown field": (skill(other=[10**400]), Code.OUT_OF_RANGE, "other[0]", "s1", "skill_update"),
    "1e999": (raw_skill('{"a": 1e999}'), Code.OUT_OF_RANGE, "metadata.a", "s1", "skill_update"),
    "no time at all": (skill(updated_at="yesterday"), Code.BAD_TIME, "updated_at", "s1", "skill_update"),
    "no such day": (skill(updated_at="2026-02-30T00:00:00Z"), Code.BAD_TIME, "updated_at", "s1", "skill_update"),
    "seconds since 1970": (skill(updated_at=1768473000), Code.BAD_TIME, "updated_at", "s1", "skill_update"),
    "a deletion at no time": (message("skill_delete", skill_id="s1", deleted_at="soon"), Code.BAD_TIME, "deleted_at",
                              "s1", "skill_delete"),
    "an id that is a path": (skill(skill_id=".."), Code.BAD_ID, "skill_id", None, "skill_update"),
    "an id that is a dot": (message("skill_delete", id="."), Code.BAD_ID, "skill_id", None, "skill_delete"),
    "a type we don't know": (message("skill_archived", id=7), Code.UNKNOWN_TYPE, "type", "7", "skill_archived"),
    "a long type we don't know": (message("x" * 99), Code.UNKNOWN_TYPE, "type", None, "x" * 64),
    "a type no database keeps": (message("\0", skill_id="s1"), Code.UNKNOWN_TYPE, "type", "s1", ""),
    "a heartbeat shouted": (message("PING"), Code.UNKNOWN_TYPE, "type", None, "PING"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_is_refused_with_code_field_key_and_kind(name):
    raw, code, field, key, kind = REFUSED[name]
    refusal = refusal_of(raw)
    assert (refusal.code, refusal.field, refusal.key, refusal.kind) == (code, field, key, kind)
    assert refusal.reason


def test_every_code_has_an_example():
    # All but the word of the database, which no message alone brings about: test_faults_dead_letters.py has those.
    assert {code for _, code, *_ in REFUSED.values()} == set(Code) - {Code.UNSTORABLE}


@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_can_be_stored_and_is_short(name):
    refusal = refusal_of(REFUSED[name][0])
    shown = f"{refusal}{refusal.key}{refusal.kind}"
    assert "\0" not in shown
    shown.encode()
    assert len(refusal.field) <= 200
    assert len(refusal.reason) <= 200


def test_a_message_of_exactly_the_limit_is_read():
    raw = skill(code="é")
    size = len(raw.encode())
    assert isinstance(decode_message(raw, server_now=NOW, max_bytes=size), SkillRecord)
    assert refusal_of(raw, max_bytes=size - 1).code is Code.TOO_LARGE


def test_the_deepest_record_that_is_accepted_has_the_documented_depth():
    record = decode_message(skill(metadata={"a": nested(MAX_DEPTH - 2)}, other=nested(MAX_DEPTH - 1)), server_now=NOW)
    assert isinstance(record, SkillRecord)
    assert record.extra == {"other": nested(MAX_DEPTH - 1)}


@pytest.mark.parametrize("junk", ["NaN", '"\\ud800"', '"\\u0000"', "1e999", "[" * 5_000 + "]" * 5_000])
def test_errors_in_unread_fields_are_ignored(junk):
    assert decode_message('{"type": "ping", "timestamp": %s}' % junk, server_now=NOW) == Ping()  # noqa: UP031
    deletion = '{"type": "skill_delete", "data": {"skill_id": "s1", "why": %s}}' % junk  # noqa: UP031
    assert decode_message(deletion, server_now=NOW) == SkillDeleted("s1", None)


def test_text_without_an_end_is_refused_quickly():
    # Quadratic reading of these half a million quotes would take minutes and run into the suite's time-out.
    # Python 3.12 reads 5,000 brackets, and finds that the text has no end.
    assert refusal_of("[" * 100_000 + '"' + '\\"' * 450_000).code is Code.TOO_DEEP


def test_depth_near_the_parsers_limit_is_refused_anywhere():
    # The parser's limit depends on the stack above it, so all depths around it are tried.
    for depth in range(880, 1_000, 4):
        deep = "[" * depth + "]" * depth
        for field in ("id", "other", "name", "metadata", "tags"):
            raw = '{"type": "skill_update", "data": {"skill_id": "s1", "name": "One", "%s": %s}}' % (field, deep)  # noqa: UP031
            refusal = refusal_of(raw)
            assert refusal.code in (Code.TOO_DEEP, Code.BAD_TYPE)
            assert refusal.key == "s1"
