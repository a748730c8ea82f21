"""HTTP bodies: a bad row never spoils a page, and a bad body never looks like an empty catalogue."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from marketplace_sync.protocol.events import CategoryRecord, SkillRecord
from marketplace_sync.protocol.limits import MAX_DEPTH
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.protocol.stamps import Stamp

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
ONE = {"skill_id": "s1", "name": "One"}
TWO = {"skill_id": "s2", "name": "Two", "updated_at": "2026-01-15T10:30:00Z"}
RECORD_ONE = SkillRecord("s1", {"name": "One"}, {}, None)
RECORD_TWO = SkillRecord("s2", {"name": "Two"}, {}, Stamp("2026-01-15T10:30:00"))


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def code_of(decode: Callable[..., object], raw: bytes) -> Code:
    with pytest.raises(DecodeError) as caught:
        decode(raw, server_now=NOW)
    return caught.value.refusal.code


def test_a_documented_page_is_read_with_its_totals():
    raw = body({"skills": [ONE, TWO], "page": 2, "page_size": 100, "total": 1500, "total_pages": 15})
    page = decode_skill_page(raw, server_now=NOW)
    assert page.skills == (RECORD_ONE, RECORD_TWO)
    assert (page.page, page.page_size, page.total, page.total_pages) == (2, 100, 1500, 15)
    assert (page.rows, page.refused) == (2, ())


def test_a_bare_list_is_a_page_without_totals():
    page = decode_skill_page(body([ONE]), server_now=NOW)
    assert page.skills == (RECORD_ONE,)
    assert (page.page, page.page_size, page.total, page.total_pages) == (None, None, None, None)
    assert decode_category_page(body([{"category": "c"}]), server_now=NOW).categories == (
        CategoryRecord("c", {}, None),
    )


def test_empty_page_needs_an_empty_list():
    assert decode_skill_page(body({"skills": [], "total": 0}), server_now=NOW).rows == 0
    assert decode_category_page(body({"categories": []}), server_now=NOW).categories == ()


@pytest.mark.parametrize(
    ("sent", "read"), [("15", 15), (15.0, 15), (-1, None), ("many", None), (True, None), (1.5, None), (10**400, None)]
)
def test_senseless_totals_are_none(sent, read):
    raw = body({"skills": [], "page": sent, "page_size": sent, "total": sent, "total_pages": sent})
    page = decode_skill_page(raw, server_now=NOW)
    assert (page.page, page.page_size, page.total, page.total_pages) == (read,) * 4


def test_there_is_no_page_0_and_no_page_of_size_0():
    raw = body({"skills": [], "page": 0, "page_size": 0, "total": 0, "total_pages": 0})
    page = decode_skill_page(raw, server_now=NOW)
    assert (page.page, page.page_size, page.total, page.total_pages) == (None, None, 0, 0)


def test_key_listed_twice_is_returned_twice_in_order():
    page = decode_skill_page(body([ONE, TWO, ONE]), server_now=NOW)
    assert page.skills == (RECORD_ONE, RECORD_TWO, RECORD_ONE)


NO_LISTING = {
    "nothing": (b"", Code.NOT_JSON),
    "HTML": (b"<!doctype html><title>Sign in</title>", Code.NOT_JSON),
    "cut short": (body({"skills": [ONE, TWO]})[:-5], Code.NOT_JSON),
    "UTF-16": (json.dumps([ONE]).encode("utf-16"), Code.NOT_JSON),
    "a text": (b'"maintenance"', Code.BAD_TYPE),
    "null": (b"null", Code.BAD_TYPE),
    "an object of something else": (body({"items": [ONE]}), Code.MISSING),
    "an error": (body({"error": "database is down"}), Code.MISSING),
    "an error beside no rows": (
        body({"error": "database is down", "skills": [], "categories": []}),
        Code.MISSING,
    ),
    "a null list": (body({"skills": None, "categories": None}), Code.MISSING),
    "rows by id": (body({"skills": {"s1": ONE}, "categories": {"c": {}}}), Code.BAD_TYPE),
    "no end of brackets": (b"[" * 100_000, Code.TOO_DEEP),
}


@pytest.mark.parametrize("name", NO_LISTING)
@pytest.mark.parametrize("decode", [decode_skill_page, decode_category_page])
def test_body_that_is_no_listing_is_refused_and_never_an_empty_page(decode, name):
    raw, code = NO_LISTING[name]
    assert code_of(decode, raw) is code


def test_null_error_beside_rows_is_ignored():
    assert decode_skill_page(body({"error": None, "skills": [ONE]}), server_now=NOW).skills == (RECORD_ONE,)


# name: (the row as JSON text, code, key)
BROKEN_ROWS = {
    "no object": ('"s3"', Code.BAD_TYPE, None),
    "no id": ('{"name": "x"}', Code.MISSING, None),
    "no name": ('{"id": 3}', Code.MISSING, "3"),
    "bad stars": ('{"skill_id": "s3", "name": "x", "average_rating": 9}', Code.OUT_OF_RANGE, "s3"),
    "NaN": ('{"skill_id": "s3", "name": "x", "average_rating": NaN}', Code.NOT_JSON, "s3"),
    "a huge number": ('{"skill_id": "s3", "name": "x", "rating_count": %s}' % ("9" * 5_000), Code.OUT_OF_RANGE, "s3"),
    "1e999": ('{"skill_id": "s3", "name": "x", "metadata": {"a": 1e999}}', Code.OUT_OF_RANGE, "s3"),
    "NUL": ('{"skill_id": "s3", "name": "\\u0000"}', Code.BAD_CHARACTER, "s3"),
    "a bare NUL": ('{"skill_id": "s3", "name": "\0"}', Code.BAD_CHARACTER, "s3"),
    "a lone surrogate": ('{"skill_id": "s3", "name": "\\ud800"}', Code.BAD_CHARACTER, "s3"),
    "a byte that is not UTF-8": ('{"skill_id": "s3", "name": "\udcff"}', Code.BAD_CHARACTER, "s3"),
    "many levels": ('{"skill_id": "s3", "name": "x", "x": %s}' % ("[" * 900 + "]" * 900), Code.TOO_DEEP, "s3"),
    "100,000 levels": ('{"skill_id": "s3", "name": "x", "x": %s}' % ("[" * 100_000 + "]" * 100_000), Code.TOO_DEEP, "s3"),  # noqa: E501
    "many levels and no name": ('{"skill_id": "s3", "x": %s}' % ("[" * 900 + "]" * 900), Code.MISSING, "s3"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_bad_row_is_refused_and_the_rest_of_the_page_is_used(name):
    row, code, key = BROKEN_ROWS[name]
    raw = f'{{"skills": [{json.dumps(ONE)}, {row}, {json.dumps(TWO)}], "total": 3}}'.encode("utf-8", "surrogateescape")
    page = decode_skill_page(raw, server_now=NOW)
    assert page.skills == (RECORD_ONE, RECORD_TWO)
    assert (page.rows, page.total) == (3, 3)
    [broken] = page.refused
    assert (broken.refusal.code, broken.refusal.key, broken.refusal.kind) == (code, key, "")
    assert broken.raw.count(b"[") <= MAX_DEPTH + 1  # or writing it would need as many levels as the sender chose
    again = json.loads(broken.raw)
    assert not isinstance(again, dict) or again.get("skill_id", again.get("id")) in (None, 3, "s3")


def test_refused_row_keeps_its_json():
    [broken] = decode_skill_page(body([{"name": "é", "x": [1, {"a": None}]}]), server_now=NOW).refused
    assert json.loads(broken.raw) == {"name": "é", "x": [1, {"a": None}]}


def test_bad_category_is_refused_with_its_name():
    page = decode_category_page(body({"categories": [{"name": "c", "skill_count": -1}, {"name": "d"}]}), server_now=NOW)
    assert page.categories == (CategoryRecord("d", {}, None),)
    [broken] = page.refused
    assert (broken.refusal.code, broken.refusal.field, broken.refusal.key) == (Code.OUT_OF_RANGE, "skill_count", "c")


def test_single_fetch_drops_the_votes():
    raw = body({**TWO, "ratings": [{"user_id": "u", "rating": 5}], "license": "MIT"})
    assert decode_skill(raw, server_now=NOW) == SkillRecord(
        "s2", {"name": "Two"}, {"license": "MIT"}, RECORD_TWO.updated
    )


def test_refused_single_skill_has_its_id():
    with pytest.raises(DecodeError) as caught:
        decode_skill(body({**ONE, "tags": [True]}), server_now=NOW)
    assert (caught.value.refusal.code, caught.value.refusal.field, caught.value.refusal.key) == (
        Code.BAD_TYPE, "tags[0]", "s1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "code"), [(b"<html>", Code.NOT_JSON), (b'{"error": "x"}', Code.MISSING), (b"[]", Code.BAD_TYPE)]
)
def test_body_that_is_no_skill_is_refused(raw, code):
    assert code_of(decode_skill, raw) is code


def test_listing_times_too_far_ahead_are_none():
    page = decode_skill_page(body([{**ONE, "updated_at": "2026-01-17T00:00:00Z"}]), server_now=NOW)
    assert page.skills == (RECORD_ONE,)
