"""Read the stored skills, tombstones and categories as the values that `engine.merge` decides on."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from django.db import OperationalError

from marketplace_sync.engine.merge import BARE_CATEGORY, Slot, StoredCategory, StoredSkill, StoredTombstone
from marketplace_sync.mirror.dialects import UnreadableRowsError, dialect
from marketplace_sync.mirror.values import json_value, stored_float, stored_stamp
from marketplace_sync.models import Category, Skill, Tombstone
from marketplace_sync.protocol.events import SKILL_EMPTY, SKILL_FIELDS
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.protocol.stamps import Stamp

# The fingerprint of a stored skill that was read column by column. No record has it.
UNREADABLE = "unreadable"

_TEXTS = ("name", "description", "version", "code", "command")
_LISTS = ("python_packages", "npm_packages", "tags")
_OBJECTS = ("metadata", "extra")
_CLOCKS = ("updated_stamp", "arrival", "rating_stamp", "rating_arrival", "fingerprint")
_SKILL, _TOMBSTONE, _CATEGORY = (model._meta.db_table for model in (Skill, Tombstone, Category))
_STORED_SKILLS = f"{_SKILL} AS skill LEFT JOIN {_CATEGORY} AS category ON category.id = skill.category_id"
_UNREADABLE_ERRORS = (UnreadableRowsError, DecodeError)


def load_fingerprints(skill_ids: Collection[str]) -> dict[str, str]:
    """Return the fingerprints of those of `skill_ids` that are stored."""
    condition, keys = dialect().among("skill_id", skill_ids)
    try:
        found = dialect().select_rows(("skill_id", "fingerprint"), f"{_SKILL} WHERE {condition}", keys)
    except UnreadableRowsError:
        return {}
    return {skill_id: fingerprint for skill_id, fingerprint in found}


def stored_bytes(skill_ids: Collection[str]) -> int:
    """Return the size of the columns of these skills that can be long."""
    size = " + ".join(dialect().text_size(name) for name in ("description", "code", *_LISTS, *_OBJECTS))
    condition, keys = dialect().among("skill_id", skill_ids)
    ((total,),) = dialect().select(f"SELECT coalesce(sum({size}), 0) FROM {_SKILL} WHERE {condition}", keys)
    return int(total)


def load_slots(skill_ids: Collection[str]) -> dict[str, Slot]:
    """Return what is stored of each of `skill_ids`: a skill, a tombstone, or `None`."""
    return load_stored(skill_ids)[0]


def load_stored(skill_ids: Collection[str]) -> tuple[dict[str, Slot], dict[str, int]]:
    """Return the slots of `skill_ids`, and the primary keys of the categories that those skills are in.

    A column with a value that the mirror never writes there counts as empty; the fingerprint of that row is
    `UNREADABLE`.
    """
    slots: dict[str, Slot] = dict.fromkeys(skill_ids)
    category_ids: dict[str, int] = {}
    if not slots:
        return slots, category_ids
    try:
        _load_skills_into(slots, list(slots), category_ids)
    except _UNREADABLE_ERRORS:
        for skill_id in skill_ids:
            try:
                _load_skills_into(slots, [skill_id], category_ids)
            except _UNREADABLE_ERRORS:
                slots[skill_id] = load_by_column(skill_id)[0]
    if missing := [skill_id for skill_id, slot in slots.items() if slot is None]:
        _load_tombstones_into(slots, missing)
    return slots, category_ids


def _load_skills_into(slots: dict[str, Slot], skill_ids: Collection[str], category_ids: dict[str, int]) -> None:
    """Put the stored skills among `skill_ids` into `slots`. Raises one of `_UNREADABLE_ERRORS`."""
    condition, keys = dialect().among("skill.skill_id", skill_ids)
    for (
        skill_id, updated, arrival, rated, rating_arrival, fingerprint,
        category_id, category, name, description, version, code, command, count, average, created,
        python_packages, npm_packages, tags, metadata, extra,
    ) in dialect().select_rows(_skill_columns(), f"{_STORED_SKILLS} WHERE {condition}", keys):  # fmt: skip
        if type(arrival) is not int or type(rating_arrival) is not int:  # `_whole`, without two calls per row
            raise UnreadableRowsError("no whole number")
        fields = {
            "category": category, "name": name, "description": description, "version": version, "code": code,
            "command": command, "rating_count": count,
            "average_rating": stored_float(average, partial(_average_rating, skill_id)),
            "remote_created_at": stored_stamp(created), "python_packages": json_value(python_packages, "["),
            "npm_packages": json_value(npm_packages, "["), "tags": json_value(tags, "["),
            "metadata": json_value(metadata, "{"),
        }  # fmt: skip
        if category is not None:
            category_ids[category] = category_id
        slots[skill_id] = StoredSkill(
            fields, json_value(extra, "{"), updated, arrival, rated, rating_arrival, fingerprint
        )


def _skill_columns() -> list[str]:
    """Return the columns that `_load_skills_into` unpacks."""
    sql = dialect()
    json = [f"skill.{name}" for name in (*_LISTS, *_OBJECTS)]
    return [
        "skill.skill_id", *(f"skill.{name}" for name in _CLOCKS), "category.id", "category.name",
        *(f"skill.{name}" for name in _TEXTS), "skill.rating_count", sql.float_column("skill.average_rating"),
        sql.time_column("skill.remote_created_at"), *map(sql.json_column, json),
    ]  # fmt: skip


def _average_rating(skill_id: str) -> float:
    return float(dialect().select(f"SELECT average_rating FROM {_SKILL} WHERE skill_id = %s", (skill_id,))[0][0])


def _load_tombstones_into(slots: dict[str, Slot], skill_ids: Collection[str]) -> None:
    condition, keys = dialect().among("skill_id", skill_ids)
    columns = ("skill_id", "deleted_stamp", "arrival")
    for skill_id, deleted, arrival in dialect().select_rows(columns, f"{_TOMBSTONE} WHERE {condition}", keys):
        slots[skill_id] = StoredTombstone(Stamp(deleted) if deleted else None, arrival)


def load_by_column(skill_id: str) -> tuple[StoredSkill, list[str]]:
    """Read a skill that cannot be read whole; return it with the columns whose values the mirror never writes there.

    Those columns count as empty, and so do its clocks: every record replaces it.
    """
    found: dict[str, Any] = {}
    unreadable: list[str] = []
    for name, (column, read) in _single_columns().items():
        query = f"SELECT {column} FROM {_STORED_SKILLS} WHERE skill.skill_id = %s"
        try:
            ((value,),) = dialect().select(query, (skill_id,))
            if isinstance(value, bytes):
                raise ValueError("bytes in a text column")
            found[name] = None if value is None else read(value)
        except (UnreadableRowsError, DecodeError, ValueError, OperationalError):
            unreadable.append(name)
    fields = {name: found[name] for name in SKILL_FIELDS if name in found}
    extra = found.get("extra", {})
    return StoredSkill({**SKILL_EMPTY, **fields}, extra, None, 0, None, 0, UNREADABLE), unreadable


def _single_columns() -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Return, by name, the expression for each column of a skill and the function that reads its value."""
    sql = dialect()
    return {
        **{name: (f"skill.{name}", str) for name in _TEXTS},
        "category": ("category.name", str),
        "rating_count": ("skill.rating_count", int),
        "average_rating": ("skill.average_rating", float),
        **{name: (sql.json_column(f"skill.{name}"), partial(json_value, opening="[")) for name in _LISTS},
        **{name: (sql.json_column(f"skill.{name}"), partial(json_value, opening="{")) for name in _OBJECTS},
        "remote_created_at": (sql.time_column("skill.remote_created_at"), stored_stamp),
        **{name: (f"skill.{name}", _whole) for name in ("arrival", "rating_arrival")},
    }


def _whole(value: Any) -> int:
    """Return the value of a column of whole numbers; SQLite stores anything else there, too."""
    if type(value) is not int:
        raise UnreadableRowsError("no whole number")
    return value


def load_categories(names: Collection[str]) -> tuple[dict[str, StoredCategory], dict[str, int]]:
    """Return the stored categories among `names`, and their primary keys. One that cannot be read counts as bare."""
    if not names:
        return {}, {}
    try:
        return _load_categories(names)
    except UnreadableRowsError:
        if len(names) == 1:
            keys = dict(Category.objects.filter(name__in=names).values_list("name", "pk"))
            return dict.fromkeys(keys, BARE_CATEGORY), keys
    stored: dict[str, StoredCategory] = {}
    ids: dict[str, int] = {}
    for name in names:
        category, key = load_categories([name])
        stored.update(category)
        ids.update(key)
    return stored, ids


def _load_categories(names: Collection[str]) -> tuple[dict[str, StoredCategory], dict[str, int]]:
    stored: dict[str, StoredCategory] = {}
    ids: dict[str, int] = {}
    condition, keys = dialect().among("name", names)
    created_at = dialect().time_column("remote_created_at")
    columns = ("name", "id", "description", "icon_url", "skill_count", created_at, "updated_stamp", "arrival")
    for name, key, description, icon_url, skill_count, created, updated, arrival in dialect().select_rows(
        columns, f"{_CATEGORY} WHERE {condition}", keys
    ):
        fields = {
            "description": description, "icon_url": icon_url, "skill_count": _whole(skill_count),
            "remote_created_at": stored_stamp(created),
        }  # fmt: skip
        stored[name] = StoredCategory(fields, Stamp(updated) if updated else None, _whole(arrival))
        ids[name] = key
    return stored, ids
