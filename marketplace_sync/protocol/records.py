"""Read skills and categories: which field is read how, under which names, and which fields are kept as `extra`.

`doubtful` is that of `json_text.read_json`, `latest` that of `fields.latest_believable`. The functions raise
`DecodeError` without `key` and `kind`; `skill_key` and `category_key` read the key. An error in a field that was sent
under another name is reported under the documented one.
"""

from collections.abc import Mapping
from typing import Any

from marketplace_sync.protocol import fields
from marketplace_sync.protocol.events import RATING_FIELDS, CategoryRecord, SkillRecord
from marketplace_sync.protocol.json_text import check_storable, decode_error, json_type
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_COMMAND_CHARS,
    MAX_NAME_CHARS,
    MAX_URL_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.protocol.stamps import Stamp

# Names that deployed servers use, and the documented one (docs/protocol.md, "Records").
_SKILL_ALIASES = {"id": "skill_id", "skill_name": "name", "avg_rating": "average_rating"}
_CATEGORY_ALIASES = {"category": "name"}
# A null counts as absent in these: the other name may have the value.
_REQUIRED = frozenset({"skill_id", "name"})

_SKILL_READERS: Mapping[str, tuple[str, fields.Reader]] = {
    "name": ("name", fields.required_text(MAX_NAME_CHARS)),
    "description": ("description", fields.text()),
    "version": ("version", fields.version),
    "code": ("code", fields.text()),
    "command": ("command", fields.text(MAX_COMMAND_CHARS)),
    "python_packages": ("python_packages", fields.text_list),
    "npm_packages": ("npm_packages", fields.text_list),
    "tags": ("tags", fields.text_list),
    "metadata": ("metadata", fields.json_object),
    "category": ("category", fields.category_name),
    "average_rating": ("average_rating", fields.average_rating),
    "rating_count": ("rating_count", fields.count),
}
_NO_LIMIT = 2**63
# Texts up to these lengths are taken without a call of their reader, which nearly all are.
_LONGEST_TEXT = {
    "description": _NO_LIMIT, "version": MAX_VERSION_CHARS, "code": _NO_LIMIT, "command": MAX_COMMAND_CHARS,
}  # fmt: skip
# Not kept as `extra`. `ratings` are the newest votes, which only a single fetch has.
_NOT_EXTRA = frozenset({"skill_id", "created_at", "updated_at", "ratings"})

_CATEGORY_READERS: Mapping[str, tuple[str, fields.Reader]] = {
    "description": ("description", fields.text()),
    "icon_url": ("icon_url", fields.text(MAX_URL_CHARS)),
    "skill_count": ("skill_count", fields.count),
}
_category_name = fields.required_text(MAX_CATEGORY_CHARS)


def skill_record(row: Any, *, doubtful: bool, latest: str) -> SkillRecord:
    """Read a skill of a `skill_update`, a listing or a single fetch; `skill_id` and `name` are required."""
    skill_id, data = identified_skill(row, doubtful)
    if "name" not in data:
        raise decode_error(Code.MISSING, "name", "required")
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for field, value in data.items():
        if type(value) is str and not doubtful and len(value) <= _LONGEST_TEXT.get(field, -1):
            known[field] = value
        elif field in _SKILL_READERS:
            target, read = _SKILL_READERS[field]
            known[target] = read(value, field, doubtful)
        elif field not in _NOT_EXTRA:
            extra[field] = value
    if "created_at" in data:
        known |= _created(data["created_at"])
    if extra:
        check_storable(extra, "", doubtful, depth=0)
    updated = fields.believable_time(data.get("updated_at"), "updated_at", latest)
    return SkillRecord(skill_id, known, extra, updated)


def identified_skill(data: Any, doubtful: bool) -> tuple[str, dict[str, Any]]:
    """Return the skill id of a message's `data`, and `data` under the documented names."""
    named = _documented_names(_object(data), _SKILL_ALIASES)
    return fields.skill_id(named.get("skill_id"), "skill_id", doubtful), named


def rating_figures(data: Mapping[str, Any], doubtful: bool) -> dict[str, Any]:
    """Return the rating figures that `data` has, out of `RATING_FIELDS`. A null average means: not rated."""
    figures: dict[str, Any] = {}
    for field in RATING_FIELDS:
        if field in data:
            target, read = _SKILL_READERS[field]
            figures[target] = read(data[field], field, doubtful)
    return figures


def category_record(row: Any, *, doubtful: bool, latest: str) -> CategoryRecord:
    """Read a category of a `category_update` or the listing. Unknown fields have no column and are left out."""
    data = _documented_names(_object(row), _CATEGORY_ALIASES)
    name = _category_name(data.get("name"), "name", doubtful)
    known = {
        target: read(data[field], field, doubtful)
        for field, (target, read) in _CATEGORY_READERS.items()
        if field in data
    }
    if "created_at" in data:
        known |= _created(data["created_at"])
    updated = fields.believable_time(data.get("updated_at"), "updated_at", latest)
    return CategoryRecord(name, known, updated)


def skill_key(row: Any) -> str | None:
    """Return the skill id of a row, if it is valid, whatever else is wrong with the row; else `None`."""
    if not isinstance(row, dict):
        return None
    try:
        return fields.skill_id(_documented_names(row, _SKILL_ALIASES).get("skill_id"), "skill_id", True)
    except DecodeError:
        return None


def category_key(row: Any) -> str | None:
    """Return the category name of a row, if it is valid; else `None`."""
    if not isinstance(row, dict):
        return None
    try:
        name: str = _category_name(_documented_names(row, _CATEGORY_ALIASES).get("name"), "name", True)
    except DecodeError:
        return None
    return name


def _created(value: Any) -> Mapping[str, Stamp | None]:
    """Return `created_at` as a field of a record. Null clears it; a text that is no time leaves the stored value."""
    created = fields.readable_time(value)
    return {} if created is None and value is not None else {"remote_created_at": created}


def _object(row: Any) -> dict[str, Any]:
    if type(row) is not dict:
        raise decode_error(Code.BAD_TYPE, "", f"must be an object, not {json_type(row)}")
    return row


def _documented_names(data: dict[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return `data` with its fields under the documented names.

    Where both names are given the documented one wins. The other stays, as an unknown field, if its value differs.
    """
    if data.keys().isdisjoint(aliases):
        return data
    named = dict(data)
    for alias, name in aliases.items():
        if alias not in named:
            continue
        if name not in named or (named[name] is None and name in _REQUIRED):
            named[name] = named.pop(alias)
        elif _same_value(named[alias], named[name]):
            del named[alias]
    return named


def _same_value(one: Any, other: Any) -> bool:
    # Containers count as different: to compare them would recurse as deep as the sender chose.
    return not isinstance(one, list | dict) and not isinstance(other, list | dict) and str(one) == str(other)
