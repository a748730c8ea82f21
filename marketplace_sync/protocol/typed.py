"""The short way for what nearly every message and row is: a skill as documented, read by msgspec into a typed value.

It knows nothing of aliases, unknown fields, numbers as text or nulls where a text is documented, and it refuses
nothing: for whatever is not plainly right it says `None`, and `records.skill_record` reads that anew. So the tolerant
reading stays the one authority on what is accepted and on what a refusal says, and the law is only this: where these
functions give a record, it is the one that the tolerant reading gives. A message of 1.6 KB takes 9 us instead of 15.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.json import Decoder
from msgspec.structs import asdict

from marketplace_sync.protocol.events import SkillRecord
from marketplace_sync.protocol.fields import DOT_SEGMENTS
from marketplace_sync.protocol.json_text import NOT_STRICT, check_storable, number_of_digits, read_strictly
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_COMMAND_CHARS,
    MAX_ID_CHARS,
    MAX_INTEGER,
    MAX_LIST_ITEMS,
    MAX_NAME_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.stamps import parse_stamp

_ABSENT = frozenset({UnsetType})
_Texts = Annotated[list[str], Meta(max_length=MAX_LIST_ITEMS)] | UnsetType


class _Skill(Struct, forbid_unknown_fields=True, gc=False):
    """The documented skill, by the mirror's own names. What is not told is UNSET."""

    skill_id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    description: str | UnsetType = UNSET
    version: Annotated[str, Meta(max_length=MAX_VERSION_CHARS)] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    command: Annotated[str, Meta(max_length=MAX_COMMAND_CHARS)] | UnsetType = UNSET
    python_packages: _Texts = UNSET
    npm_packages: _Texts = UNSET
    tags: _Texts = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    category: Annotated[str, Meta(max_length=MAX_CATEGORY_CHARS)] | UnsetType | None = UNSET
    average_rating: Annotated[float, Meta(ge=0, le=5)] | UnsetType | None = UNSET
    rating_count: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET
    remote_created_at: str | UnsetType | None = field(name="created_at", default=UNSET)
    updated_at: str | None = None


class _SkillUpdate(Struct, forbid_unknown_fields=True, gc=False):
    """The envelope. `timestamp` is not used, but named, so that it is read as strictly as the rest."""

    type: Literal["skill_update"]
    data: _Skill
    timestamp: str | None = None


_message: Callable[[bytes], _SkillUpdate] = Decoder(_SkillUpdate, float_hook=number_of_digits).decode
_row: Callable[[bytes], _Skill] = Decoder(_Skill, float_hook=number_of_digits).decode
_raw_rows: Callable[[memoryview], list[Raw]] = Decoder(list[Raw]).decode


def skill_update(raw: bytes, latest: str) -> SkillRecord | None:
    """The record of a documented `skill_update`; `None` for everything else, which the tolerant reading has to judge.

    `latest`: see `fields.latest_believable`.
    """
    # Others are spared the attempt. Only a message without this text is read to its end for it, and those are short.
    if b'"skill_update"' not in raw or b"\\u0000" in raw:
        return None
    try:
        return _record(_message(raw).data, latest)
    except NOT_STRICT:
        return None


def skill_row(raw: bytes, latest: str) -> SkillRecord | None:
    """The same for one row of a listing."""
    if b"\\u0000" in raw:
        return None
    try:
        return _record(_row(raw), latest)
    except NOT_STRICT:
        return None


def cut_out_rows(body: bytes, name: str) -> tuple[Any, list[Raw]] | None:
    """A listing with nothing in its one list, under `name` or bare, and that list's rows, unread.

    `None` where it is not of that shape, where it reports an error, or is no JSON. The rows still have to be read
    strictly; if all of them can be, so can the body. What stands around the list is JSON with `[]` in its place, with
    no other bracket before it, so a list is what stood there, and it ended with the last bracket of all.
    """
    start, end = body.find(b"["), body.rfind(b"]") + 1
    if not 0 <= start < end:
        return None
    try:
        page, _ = read_strictly(body[:start] + b"[]" + body[end:])
        if type(page) is dict and (page.get("error") or type(page.get(name)) is not list):
            return None
        return page, _raw_rows(memoryview(body)[start:end])
    except NOT_STRICT:
        return None


def _record(skill: _Skill, latest: str) -> SkillRecord | None:
    skill_id = skill.skill_id
    if skill.name.isspace() or skill_id.isspace() or skill_id in DOT_SEGMENTS:
        return None
    known = asdict(skill)
    if not _ABSENT.isdisjoint(map(type, known.values())):  # a third of what it takes to sort them out each time
        known = {name: value for name, value in known.items() if value is not UNSET}
    del known["skill_id"]
    told = known.pop("updated_at")
    try:
        updated = None if told is None else parse_stamp(told)
        if created := skill.remote_created_at:
            known["remote_created_at"] = parse_stamp(created)
        elif created == "":
            return None
        if metadata := skill.metadata:
            check_storable(metadata, "metadata", False)
    except ValueError:  # `DecodeError` and `NoTimeError` too
        return None
    if (category := skill.category) is not UNSET and (not category or category.isspace()):
        known["category"] = None
    if stars := skill.average_rating:
        known["average_rating"] = stars
    elif stars is not UNSET and stars is not None:
        known["average_rating"] = 0.0  # -0.0 too
    return SkillRecord(skill_id, known, {}, None if updated is None or updated > latest else updated)
