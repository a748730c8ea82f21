"""Decode HTTP bodies: a page of the skill listing, the category listing, a single skill.

A body that is not as docs/protocol.md describes it is refused as a whole: it must never look like an empty catalogue.
A row that is not as described is refused alone, and the rest of the page is used.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from marketplace_sync.protocol.events import CategoryPage, CategoryRecord, RefusedRow, SkillPage, SkillRecord
from marketplace_sync.protocol.fields import latest_believable, total
from marketplace_sync.protocol.json_text import (
    NOT_STRICT,
    decode_error,
    encode_row,
    json_type,
    read_json,
    read_strictly,
)
from marketplace_sync.protocol.limits import MAX_BODY_MARKS, MAX_ROWS
from marketplace_sync.protocol.records import category_key, category_record, skill_key, skill_record
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.protocol.typed import cut_out_rows, skill_row

# After so many rows that the fast path could not read, the rest of a page skips it: a miss costs 5 µs, a row 15.
_MAX_MISSED = 20


class _PageContent(NamedTuple):
    """The content of a body. `page` is the JSON around the rows; it may still contain them."""

    page: Any
    skills: list[SkillRecord]
    refused: list[RefusedRow]


def decode_skill_page(body: bytes, *, server_now: datetime) -> SkillPage:
    """Decode an answer to `GET /skills`: an object with `skills`, or a bare list of them.

    `server_now`: the server's `Date`, aware. A key that is listed twice is returned twice, in order.
    Totals that are absent, negative or not whole numbers become `None` and refuse nothing: paging works without
    them. Raises `DecodeError` when the body as a whole can't be read.
    """
    _check_size(body)
    latest = latest_believable(server_now)
    page, skills, refused = _read_by_row(body, latest) or _read_whole(body, latest)
    about: dict[str, Any] = page if isinstance(page, dict) else {}
    return SkillPage(
        skills=tuple(skills),
        refused=tuple(refused),
        rows=len(skills) + len(refused),
        page=total(about.get("page"), 1),
        page_size=total(about.get("page_size"), 1),
        total=total(about.get("total"), 0),
        total_pages=total(about.get("total_pages"), 0),
    )


def decode_category_page(body: bytes, *, server_now: datetime) -> CategoryPage:
    """Decode an answer to `GET /categories`: an object with `categories`, or a bare list of them.

    Raises `DecodeError` when the body as a whole can't be read.
    """
    page, doubtful = _read(body)
    latest = latest_believable(server_now)
    categories: list[CategoryRecord] = []
    refused: list[RefusedRow] = []
    for row in _rows(page, "categories"):
        try:
            categories.append(category_record(row, doubtful=doubtful, latest=latest))
        except DecodeError as error:
            refused.append(_refused_row(row, error, category_key))
    return CategoryPage(tuple(categories), tuple(refused))


def decode_skill(body: bytes, *, server_now: datetime) -> SkillRecord:
    """Decode an answer to `GET /skills/{skill_id}`, without its `ratings`.

    Raises `DecodeError`, with the `key` where the body has one. The caller compares whether it is the requested skill.
    """
    row, doubtful = _read(body)
    try:
        return skill_record(row, doubtful=doubtful, latest=latest_believable(server_now))
    except DecodeError as error:
        raise DecodeError(replace(error.refusal, key=skill_key(row))) from None


def _read_whole(body: bytes, latest: str) -> _PageContent:
    page, doubtful = read_json(body)
    content = _PageContent(page, [], [])
    for row in _rows(page, "skills"):
        _read_row(row, doubtful, latest, content)
    return content


def _read_by_row(body: bytes, latest: str) -> _PageContent | None:
    """Read a body row by row: a third less CPU, and never more than one row's JSON in memory.

    `None` where the body has another shape, or is not strictly JSON: then it must be read as a whole.
    """
    found = cut_out_rows(body, "skills")
    if found is None or len(found[1]) > MAX_ROWS:
        return None
    page, rows = found
    content = _PageContent(page, [], [])
    missed = 0
    for raw in map(bytes, rows):
        record = skill_row(raw, latest) if missed < _MAX_MISSED else None
        if record is not None:
            content.skills.append(record)
        else:
            missed += 1
            try:
                data, doubtful = read_strictly(raw)
            except NOT_STRICT:
                return None
            _read_row(data, doubtful, latest, content)
    return content


def _read_row(row: Any, doubtful: bool, latest: str, into: _PageContent) -> None:
    try:
        into.skills.append(skill_record(row, doubtful=doubtful, latest=latest))
    except DecodeError as error:
        into.refused.append(_refused_row(row, error, skill_key))


def _read(body: bytes) -> tuple[Any, bool]:
    _check_size(body)
    return read_json(body)


def _check_size(body: bytes) -> None:
    """Refuse a body that would take more memory than an honest one."""
    # Counting takes 2.7 µs per row, so a body with fewer bytes than that is not counted.
    if len(body) > MAX_BODY_MARKS and sum(map(body.count, (b",", b"[", b"{"))) > MAX_BODY_MARKS:
        raise decode_error(Code.TOO_LONG, "", f"more than {MAX_BODY_MARKS:,} commas and brackets in one answer")


def _rows(page: Any, field: str) -> list[Any]:
    if type(page) is list:
        return _few_enough(page, field)
    if type(page) is not dict:
        raise decode_error(Code.BAD_TYPE, "", f"must be an object with `{field}` or a list, not {json_type(page)}")
    # Also where there are rows: an empty list together with an error is not an empty catalogue.
    if page.get("error"):
        raise decode_error(Code.MISSING, field, "the answer reports an error instead")
    rows = page.get(field)
    if rows is None:
        raise decode_error(Code.MISSING, field, "required")
    if type(rows) is not list:
        raise decode_error(Code.BAD_TYPE, field, f"must be a list, not {json_type(rows)}")
    return _few_enough(rows, field)


def _few_enough(rows: list[Any], field: str) -> list[Any]:
    if len(rows) > MAX_ROWS:
        raise decode_error(Code.TOO_LONG, field, f"{len(rows):,} rows in one answer; at most {MAX_ROWS:,}")
    return rows


def _refused_row(row: Any, error: DecodeError, key_of: Callable[[Any], str | None]) -> RefusedRow:
    return RefusedRow(replace(error.refusal, key=key_of(row)), encode_row(row))
