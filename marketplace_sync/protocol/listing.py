"""HTTP bodies: the pages of the skill listing, the category listing, a single skill.

A body that is not what PROTOCOL.md describes is refused as a whole: it must never look like an empty
catalogue. A row that is not is set apart, and the rest of the page stands.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from marketplace_sync.protocol.events import BrokenRow, CategoryPage, CategoryRecord, SkillPage, SkillRecord
from marketplace_sync.protocol.fields import latest_believable, total
from marketplace_sync.protocol.json_text import NOT_STRICT, encode_row, fault, json_type, read_json, read_strictly
from marketplace_sync.protocol.limits import MAX_BODY_MARKS, MAX_ROWS
from marketplace_sync.protocol.records import category_key, category_record, skill_key, skill_record
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.protocol.typed import cut_out_rows, skill_row

# A server whose rows are not as documented is not asked for it a thousand times: a miss adds 5 us to the 15 of a row.
_MAX_MISSED = 20


class _Read(NamedTuple):
    """The page (read as a whole: with its rows), and what its rows are."""

    page: Any
    skills: list[SkillRecord]
    broken: list[BrokenRow]


def decode_skill_page(body: bytes, *, server_now: datetime) -> SkillPage:
    """Read an answer to `GET /skills`: an object with `skills`, or a bare list of them.

    `server_now`: the server's `Date`, aware. A key that is listed twice is given twice, in order.
    Page figures that are absent, negative or no whole numbers are `None`, never a refusal: paging can do without
    them. Raises `DecodeError` when the whole body can't be read.
    """
    _check_size(body)
    latest = latest_believable(server_now)
    page, skills, broken = _by_row(body, latest) or _at_once(body, latest)
    about: dict[str, Any] = page if isinstance(page, dict) else {}
    return SkillPage(
        skills=tuple(skills),
        broken=tuple(broken),
        rows=len(skills) + len(broken),
        page=total(about.get("page"), 1),
        page_size=total(about.get("page_size"), 1),
        total=total(about.get("total"), 0),
        total_pages=total(about.get("total_pages"), 0),
    )


def decode_category_page(body: bytes, *, server_now: datetime) -> CategoryPage:
    """Read an answer to `GET /categories`: an object with `categories`, or a bare list of them.

    Raises `DecodeError` when the body as a whole can't be read.
    """
    page, doubtful = _read(body)
    latest = latest_believable(server_now)
    categories: list[CategoryRecord] = []
    broken: list[BrokenRow] = []
    for row in _rows(page, "categories"):
        try:
            categories.append(category_record(row, doubtful=doubtful, latest=latest))
        except DecodeError as refused:
            broken.append(_broken(row, refused, category_key))
    return CategoryPage(tuple(categories), tuple(broken))


def decode_skill(body: bytes, *, server_now: datetime) -> SkillRecord:
    """Read an answer to `GET /skills/{skill_id}`, without its `ratings`.

    Raises `DecodeError`, with the `key` where the body has one. Whether it is the skill that was asked
    for is for the caller to compare.
    """
    row, doubtful = _read(body)
    try:
        return skill_record(row, doubtful=doubtful, latest=latest_believable(server_now))
    except DecodeError as refused:
        raise DecodeError(replace(refused.refusal, key=skill_key(row))) from None


def _at_once(body: bytes, latest: str) -> _Read:
    page, doubtful = read_json(body)
    read = _Read(page, [], [])
    for row in _rows(page, "skills"):
        _read_row(row, doubtful, latest, read)
    return read


def _by_row(body: bytes, latest: str) -> _Read | None:
    """The same, row by row: a third less CPU, and never more than one row's JSON in memory.

    `None` where the body has another shape, or is not strictly JSON: then it has to be read as a whole.
    """
    found = cut_out_rows(body, "skills")
    if found is None or len(found[1]) > MAX_ROWS:
        return None
    page, rows = found
    read = _Read(page, [], [])
    missed = 0
    for raw in map(bytes, rows):
        record = skill_row(raw, latest) if missed < _MAX_MISSED else None
        if record is not None:
            read.skills.append(record)
        else:
            missed += 1
            try:
                data, doubtful = read_strictly(raw)
            except NOT_STRICT:
                return None
            _read_row(data, doubtful, latest, read)
    return read


def _read_row(row: Any, doubtful: bool, latest: str, into: _Read) -> None:
    try:
        into.skills.append(skill_record(row, doubtful=doubtful, latest=latest))
    except DecodeError as refused:
        into.broken.append(_broken(row, refused, skill_key))


def _read(body: bytes) -> tuple[Any, bool]:
    _check_size(body)
    return read_json(body)


def _check_size(body: bytes) -> None:
    """Refuses what would take more memory than an honest body."""
    # Counting takes 2.7 us a row, so it is left out where there are not even as many bytes.
    if len(body) > MAX_BODY_MARKS and sum(map(body.count, (b",", b"[", b"{"))) > MAX_BODY_MARKS:
        raise fault(Code.TOO_LONG, "", f"more than {MAX_BODY_MARKS:,} commas and brackets in one answer")


def _rows(page: Any, field: str) -> list[Any]:
    if type(page) is list:
        return _few_enough(page, field)
    if type(page) is not dict:
        raise fault(Code.BAD_TYPE, "", f"must be an object with `{field}` or a list, not {json_type(page)}")
    # Also beside rows: an empty list that comes with an error is no empty catalogue.
    if page.get("error"):
        raise fault(Code.MISSING, field, "the answer reports an error instead")
    rows = page.get(field)
    if rows is None:
        raise fault(Code.MISSING, field, "required")
    if type(rows) is not list:
        raise fault(Code.BAD_TYPE, field, f"must be a list, not {json_type(rows)}")
    return _few_enough(rows, field)


def _few_enough(rows: list[Any], field: str) -> list[Any]:
    if len(rows) > MAX_ROWS:
        raise fault(Code.TOO_LONG, field, f"{len(rows):,} rows in one answer; at most {MAX_ROWS:,}")
    return rows


def _broken(row: Any, refused: DecodeError, key_of: Callable[[Any], str | None]) -> BrokenRow:
    return BrokenRow(replace(refused.refusal, key=key_of(row)), encode_row(row))
