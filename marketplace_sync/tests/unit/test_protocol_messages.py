"""What the reader accepts, and in which forms: examples for docs/protocol.md, "Records"."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from marketplace_sync.protocol.encode import ping_message, pong_message
from marketplace_sync.protocol.events import (
    CATEGORY_EMPTY,
    CATEGORY_FIELDS,
    SKILL_EMPTY,
    SKILL_FIELDS,
    CategoryRecord,
    Change,
    Heartbeat,
    Ping,
    Pong,
    RatingChanged,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.limits import MAX_FREE_INTEGER
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.stamps import Stamp

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
SKILL = {
    "skill_id": "550e8400-e29b-41d4-a716-446655440000", "name": "Send Email", "description": "Sends.",
    "version": "1.0.0", "code": "def send_email(): ...", "command": "python", "python_packages": ["pandas>=1.3"],
    "npm_packages": [], "tags": ["email"], "metadata": {"author": "A", "documentation_url": "https://docs.example"},
    "category": "automation", "average_rating": 4.5, "rating_count": 42,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-15T10:30:00Z",
}  # fmt: skip


def decode(kind: str, data: dict[str, Any], timestamp: Any = None) -> Change | Heartbeat:
    return decode_message(json.dumps({"type": kind, "data": data, "timestamp": timestamp}), server_now=NOW)


def skill(**data: Any) -> SkillRecord:
    record = decode("skill_update", {"skill_id": "s1", "name": "One", **data})
    assert isinstance(record, SkillRecord)
    return record


def rating(**data: Any) -> RatingChanged:
    change = decode("rating_update", {"skill_id": "s1", "rating": 5, **data})
    assert isinstance(change, RatingChanged)
    return change


def category(**data: Any) -> CategoryRecord:
    record = decode("category_update", data)
    assert isinstance(record, CategoryRecord)
    return record


def test_documented_skill_is_decoded_completely():
    record = decode("skill_update", SKILL)
    expected = {name: SKILL[name] for name in SKILL_FIELDS if name in SKILL}
    expected["remote_created_at"] = "2026-01-01T00:00:00"
    assert record == SkillRecord(SKILL["skill_id"], expected, {}, "2026-01-15T10:30:00")
    assert set(expected) == set(SKILL_FIELDS)


def test_an_absent_field_is_not_among_the_fields():
    assert skill() == SkillRecord("s1", {"name": "One"}, {}, None)


def test_an_explicit_null_is_the_fields_empty_value():
    record = skill(**{name: None for name in SKILL if name not in ("skill_id", "name")})
    assert record.fields == {**SKILL_EMPTY, "name": "One"}
    assert record.updated is None


def test_a_null_category_field_is_its_empty_value():
    record = category(name="c", description=None, icon_url=None, skill_count=None, created_at=None, updated_at=None)
    assert record == CategoryRecord("c", dict(CATEGORY_EMPTY), None)
    assert set(CATEGORY_FIELDS) == set(CATEGORY_EMPTY)


def test_aliases_of_fields_are_read():
    data = {"id": "s1", "skill_name": "One", "avg_rating": 4.5}
    record = decode("skill_update", data)
    assert record == SkillRecord("s1", {"name": "One", "average_rating": 4.5}, {}, None)
    assert decode("skill_delete", {"id": "s1"}) == SkillDeleted("s1", None)
    assert decode("rating_update", {"id": "s1", "rating": 5, "avg_rating": 3}) == RatingChanged(
        "s1", 5, {"average_rating": 3.0}, None
    )
    assert decode("category_update", {"category": "c"}) == CategoryRecord("c", {}, None)


def test_documented_name_wins_over_an_alias_with_another_value():
    record = skill(id="other", skill_name="Other", average_rating=4.5, avg_rating=1)
    assert record.skill_id == "s1"
    assert record.fields == {"name": "One", "average_rating": 4.5}
    assert record.extra == {"id": "other", "skill_name": "Other", "avg_rating": 1}
    assert category(name="c", category="d").name == "c"


def test_alias_with_the_same_value_is_dropped():
    assert skill(id="s1", skill_name="One", average_rating=4, avg_rating=4).extra == {}
    assert skill(skill_id=42, id="42").extra == {}


def test_alias_replaces_a_null_required_field():
    assert skill(skill_id=None, id="s2", name=None, skill_name="Two") == SkillRecord("s2", {"name": "Two"}, {}, None)


def test_alias_does_not_replace_a_null_average():
    record = skill(average_rating=None, avg_rating=4)
    assert record.fields["average_rating"] is None
    assert record.extra == {"avg_rating": 4}


@pytest.mark.parametrize(("sent", "read"), [(42, "42"), (-1, "-1"), (2**64 - 1, str(2**64 - 1)), (" s ", " s ")])
def test_an_id_is_text_as_sent_and_an_integer_its_digits(sent, read):
    assert skill(skill_id=sent).skill_id == read


def test_names_are_stored_exactly_as_sent():
    # Two spellings of the same glyph, spaces around: another name is another name.
    assert skill(name=" e\u0301 ").fields["name"] == " e\u0301 "


def test_unknown_fields_are_kept_and_votes_are_dropped():
    extra = {"license": "MIT", "nested": {"a": [1, None, "x", 1.5]}, "nothing": None, "": 0}
    assert skill(**extra, ratings=[{"user_id": "u", "rating": 5}]).extra == extra


def test_unknown_fields_of_a_category_are_left_out():
    assert category(name="c", colour="red", skill_count=3).fields == {"skill_count": 3}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (4.5, 4.5),
        ("4.5", 4.5),
        (4, 4.0),
        ("4", 4.0),
        (0, 0.0),
        (5, 5.0),
        ("45e-1", 4.5),
        (None, None),
        ("4.", 4.0),
        (".5", 0.5),
        (" 4.50 ", 4.5),
        ("", None),
        (5.0000000001, 5.0),
        ("-1e-9", 0.0),
    ],
)
def test_stars_are_a_float_or_none(sent, read):
    stars = skill(average_rating=sent).fields["average_rating"]
    assert stars == read
    assert stars is None or type(stars) is float


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (42, 42),
        ("42", 42),
        (42.0, 42),
        ("42.0", 42),
        (0, 0),
        (None, 0),
        ("", 0),
        ("1,500", 1500),
        ("1,234,567", 1234567),
    ],
)
def test_counts_are_integers(sent, read):
    for count in (skill(rating_count=sent).fields["rating_count"], category(name="c", skill_count=sent)
                  .fields["skill_count"]):  # fmt: skip
        assert count == read
        assert type(count) is int


@pytest.mark.parametrize(("sent", "read"), [("1.10", "1.10"), (2, "2"), (1.0, "1.0"), (1.5, "1.5"), (None, "")])
def test_a_version_that_looks_like_a_number_is_its_digits(sent, read):
    assert skill(version=sent).fields["version"] == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (["a", None, "b"], ["a", "b"]), ([None], []), ([2024, "a"], ["2024", "a"]), ({}, []), ("", []), (None, []),
        ({"0": "a", "2": "b"}, ["a", "b"]),
    ],
)  # fmt: skip
def test_lists_are_read_in_the_forms_that_vary_with_their_content(sent, read):
    record = skill(tags=sent, python_packages=sent)
    assert record.fields["tags"] == record.fields["python_packages"] == read


@pytest.mark.parametrize("sent", [[], "", None, {}])
def test_empty_metadata_is_empty_in_every_form(sent):
    assert skill(metadata=sent).fields["metadata"] == {}


@pytest.mark.parametrize(("sent", "read"), [("automation", "automation"), ("", None), (" \t", None), (None, None)])
def test_a_blank_category_is_none(sent, read):
    assert skill(category=sent).fields == {"name": "One", "category": read}


@pytest.mark.parametrize("sent", [5, "5", 5.0, "5.0"])
def test_a_vote_is_an_integer(sent):
    vote = rating(rating=sent).rating
    assert vote == 5
    assert type(vote) is int


def test_rating_has_only_the_figures_that_were_sent():
    assert rating().figures == {}
    assert rating(average_rating=None).figures == {"average_rating": None}
    assert rating(rating_count="7", description="not ours here").figures == {"rating_count": 7}
    assert rating(average_rating="4.25", rating_count=7, updated_at="2026-01-15T10:30:00Z") == RatingChanged(
        "s1", 5, {"average_rating": 4.25, "rating_count": 7}, "2026-01-15T10:30:00"
    )


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2026-01-15T10:30:00Z", "2026-01-15T10:30:00"),
        ("2026-01-15T12:30:00+02:00", "2026-01-15T10:30:00"),
        ("2026-01-15 10:30:00", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00.123456789Z", "2026-01-15T10:30:00.123456789"),
        ("2026-01-15T10:30:00.500-00:30", "2026-01-15T11:00:00.5"),
        ("2026-01-15T10:30Z", "2026-01-15T10:30:00"),
        ("2026-01-15T10:29:60+00", "2026-01-15T10:30:00"),
        (None, None),
    ],
)
def test_times_are_read_with_offsets_with_fractions_and_without(sent, read):
    record = skill(updated_at=sent, created_at=sent)
    assert record.updated == read
    assert record.fields["remote_created_at"] == read


@pytest.mark.parametrize(
    "sent", ["yesterday", 1768473000, 1768473000.5, True, [], {}, "2026-02-30", "", "0001-01-01T00:00:00Z", "infinity"]
)
def test_unreadable_created_at_leaves_the_stored_value(sent):
    assert skill(created_at=sent, updated_at="2026-01-15T10:30Z") == SkillRecord(
        "s1", {"name": "One"}, {}, Stamp("2026-01-15T10:30:00")
    )
    assert category(name="c", created_at=sent).fields == {}


@pytest.mark.parametrize("sent", ["", "0001-01-01T00:00:00Z", "0000-00-00 00:00:00", "+10000-01-01T00:00:00Z"])
def test_text_for_no_time_is_no_time(sent):
    assert skill(updated_at=sent).updated is None
    assert rating(updated_at=sent).updated is None
    assert decode("skill_delete", {"skill_id": "s1", "deleted_at": sent}, "2026-01-15T11:00Z") == SkillDeleted(
        "s1", Stamp("2026-01-15T11:00:00")
    )


def test_a_time_more_than_a_day_ahead_of_the_server_is_none():
    assert skill(updated_at="2026-01-16T12:00:00Z").updated == "2026-01-16T12:00:00"
    assert skill(updated_at="2026-01-16T12:00:00.000000001Z").updated is None
    assert rating(updated_at="2026-01-17T00:00:00Z").updated is None
    assert category(name="c", updated_at="9999-12-31T23:59:59Z").updated is None
    assert skill(created_at="2099-01-01T00:00:00Z").fields["remote_created_at"] == "2099-01-01T00:00:00"


def test_distance_ahead_does_not_depend_on_the_time_zone():
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    raw = json.dumps({"type": "skill_delete", "data": {"skill_id": "s1", "deleted_at": "2026-01-16T12:30:00Z"}})
    assert decode_message(raw, server_now=berlin) == SkillDeleted("s1", None)


def test_server_clock_at_the_end_of_time_raises_nothing():
    raw = json.dumps({"type": "skill_delete", "data": {"skill_id": "s1", "deleted_at": "9999-12-31T23:59:59Z"}})
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    assert decode_message(raw, server_now=end) == SkillDeleted("s1", "9999-12-31T23:59:59")


@pytest.mark.parametrize(
    ("deleted_at", "timestamp", "deleted"),
    [
        ("2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z", "2026-01-15T10:00:00"),
        (None, "2026-01-15T11:00:00Z", "2026-01-15T11:00:00"),
        ("2027-01-01T00:00:00Z", "2026-01-15T11:00:00Z", "2026-01-15T11:00:00"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", None),
        (None, "never", None),
        (None, 1768473000, None),
        (None, None, None),
    ],
)
def test_removal_without_a_time_takes_the_envelopes(deleted_at, timestamp, deleted):
    assert decode("skill_delete", {"skill_id": "s1", "deleted_at": deleted_at}, timestamp) == SkillDeleted(
        "s1", deleted
    )


def test_update_ignores_the_envelopes_time():
    record = decode("skill_update", {"skill_id": "s1", "name": "One"}, "2026-01-15T11:00:00Z")
    assert isinstance(record, SkillRecord)
    assert record.updated is None


@pytest.mark.parametrize("rest", ['"timestamp": 5', '"data": []', '"data": {"skill_id": 1}, "timestamp": null'])
def test_heartbeat_needs_only_its_type(rest):
    assert decode_message(f'{{"type": "ping", {rest}}}', server_now=NOW) == Ping()
    assert decode_message(f'{{"type": "pong", {rest}}}', server_now=NOW) == Pong()


def test_last_of_a_key_given_twice_wins():
    raw = '{"type": "skill_update", "data": {"skill_id": "s1", "name": "One", "name": "Two"}}'
    record = decode_message(raw, server_now=NOW)
    assert isinstance(record, SkillRecord)
    assert record.fields == {"name": "Two"}


def test_byte_order_mark_is_ignored():
    assert decode_message('\ufeff{"type": "ping"}', server_now=NOW) == Ping()


def test_escapes_that_only_look_dangerous_are_text():
    # A surrogate pair is one character, and `\\u0000` six of them.
    record = skill(description="\U0001f600", code="\\u0000")
    assert record.fields["description"] == "\U0001f600"
    assert record.fields["code"] == "\\u0000"


def test_large_integers_keep_every_digit():
    # Real records have them as plain numbers of 160 bits.
    address = 692977421008878103107201307513772018910236298852
    assert skill(metadata={"wallet": address, "most": MAX_FREE_INTEGER}).fields["metadata"] == {
        "wallet": address,
        "most": MAX_FREE_INTEGER,
    }


def test_numbers_have_the_form_that_a_jsonb_column_returns():
    raw = '{"type": "skill_update", "data": {"skill_id": "s1", "name": "n", "metadata": {"n": [1e23, -0.0, 1e3, 1.5]}}}'
    record = decode_message(raw, server_now=NOW)
    assert isinstance(record, SkillRecord)
    # PostgreSQL writes 1e23 as an integer and has no negative zero.
    assert repr(record.fields["metadata"]["n"]) == f"[{int(1e23)}, 0.0, 1000.0, 1.5]"


def test_heartbeats_are_written_as_documented():
    now = datetime(2026, 1, 15, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    assert json.loads(ping_message(now)) == {"type": "ping", "timestamp": "2026-01-15T10:00:00.250Z"}
    assert json.loads(pong_message(now)) == {"type": "pong", "timestamp": "2026-01-15T10:00:00.250Z"}
    assert decode_message(ping_message(now), server_now=NOW) == Ping()
    assert decode_message(pong_message(now), server_now=NOW) == Pong()
