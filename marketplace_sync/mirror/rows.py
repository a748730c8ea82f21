"""Skills, graves and categories between the database and the values that `engine.merge` decides on."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any

import msgspec
from django.db import OperationalError

from marketplace_sync.engine.merge import BARE_CATEGORY, Slot, StoredCategory, StoredSkill, StoredTombstone
from marketplace_sync.mirror.bulk import Bulk, narrow_updates_pay
from marketplace_sync.mirror.sql import (
    UnreadableRowsError,
    among,
    execute,
    float_column,
    json_column,
    json_text,
    json_value,
    moment_value,
    rows,
    select,
    stamp_value,
    stored_float,
    stored_stamp,
    text_size,
    time_column,
)
from marketplace_sync.models import Category, Skill, Tombstone
from marketplace_sync.protocol.events import SKILL_EMPTY, SKILL_FIELDS
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.protocol.stamps import Stamp, moment_of

_TEXTS = ("name", "description", "version", "code", "command")
_LISTS = ("python_packages", "npm_packages", "tags")
_JSON = (*_LISTS, "metadata")
_FIGURES = ("average_rating", "rating_count")
_CLOCKS = ("updated_stamp", "arrival", "rating_stamp", "rating_arrival", "fingerprint")

_REST = (
    "version", "code", "command", *_FIGURES, "python_packages", "npm_packages", "metadata", "extra",
    "remote_created_at", "remote_updated_at", "rating_at", *_CLOCKS,
)  # fmt: skip
# What search and the list by name find them by, and with the category the list by that: SQLite takes 54 us to update
# these too, changed or not, and 21 us where they are left alone, as most messages leave them.
_FOUND_BY = ("name", "description", "tags")
_SKILLS = Bulk(Skill, ("synced_at", "category_id", *_FOUND_BY, *_REST, "skill_id"), keyed=True)
_SKILLS_FOUND_AS_BEFORE = Bulk(Skill, ("synced_at", *_REST, "skill_id"), keyed=True)
_REMOVED_AT = str(Tombstone._meta.get_field("removed_at").column)
_TOMBSTONES = Bulk(Tombstone, ("deleted_at", "deleted_stamp", "arrival", _REMOVED_AT, "skill_id"), keyed=True)
_SKILL, _GRAVE, _CATEGORY = (model._meta.db_table for model in (Skill, Tombstone, Category))


def load_fingerprints(skill_ids: Collection[str]) -> dict[str, str]:
    """The fingerprints of those of `skill_ids` that the mirror has."""
    condition, keys = among("skill_id", skill_ids)
    try:
        found = rows(("skill_id", "fingerprint"), f"{_SKILL} WHERE {condition}", keys)
    except UnreadableRowsError:
        return {}
    return {skill_id: fingerprint for skill_id, fingerprint in found}


def stored_bytes(skill_ids: Collection[str]) -> int:
    """The size of what can be long of `skill_ids`, as the mirror has them."""
    condition, keys = among("skill_id", skill_ids)
    ((total,),) = select(f"SELECT coalesce(sum({_size()}), 0) FROM {_SKILL} WHERE {condition}", keys)
    return int(total)


def _size() -> str:
    return " + ".join(text_size(name) for name in ("description", "code", *_JSON, "extra"))


def load_slots(skill_ids: Collection[str]) -> dict[str, Slot]:
    """What is held of each of `skill_ids`: a skill, a grave, or `None`."""
    return load_stored(skill_ids)[0]


def load_stored(skill_ids: Collection[str]) -> tuple[dict[str, Slot], dict[str, int]]:
    """What is held of each of `skill_ids`, and the primary keys of the categories that those skills are in.

    A column that holds what no writer of ours puts there counts as empty; that row's fingerprint is `UNREADABLE`.
    """
    slots: dict[str, Slot] = dict.fromkeys(skill_ids)
    category_ids: dict[str, int] = {}
    if not slots:
        return slots, category_ids
    try:
        _load_into(slots, list(slots), category_ids)
    except _UNREADABLE_ERRORS:
        for skill_id in skill_ids:
            try:
                _load_into(slots, [skill_id], category_ids)
            except _UNREADABLE_ERRORS:
                slots[skill_id] = load_by_column(skill_id)[0]
    missing = [skill_id for skill_id, slot in slots.items() if slot is None]
    if missing:
        condition, keys = among("skill_id", missing)
        for skill_id, deleted, arrival in rows(
            ("skill_id", "deleted_stamp", "arrival"), f"{_GRAVE} WHERE {condition}", keys
        ):
            slots[skill_id] = StoredTombstone(Stamp(deleted) if deleted else None, arrival)
    return slots, category_ids


def _load_into(slots: dict[str, Slot], skill_ids: Collection[str], category_ids: dict[str, int]) -> None:
    """Put the stored skills among `skill_ids` into `slots`. Raises one of `_UNREADABLE_ERRORS`."""
    condition, keys = among("skill.skill_id", skill_ids)
    for (
        skill_id, updated, arrival, rated, rating_arrival, fingerprint,
        category_id, category, name, description, version, code, command, count, average, created,
        python_packages, npm_packages, tags, metadata, extra,
    ) in rows(_slot_columns(), f"{_HELD_SKILLS} WHERE {condition}", keys):  # fmt: skip
        if type(arrival) is not int or type(rating_arrival) is not int:  # `_whole`, without two calls a row
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


def load_by_column(skill_id: str) -> tuple[StoredSkill, list[str]]:
    """Read a stored skill that cannot be read whole; the columns that hold what no writer of ours puts there.

    Those count as empty, and so do its clocks: every record replaces it.
    """
    columns: dict[str, tuple[str, Callable[[Any], Any]]] = {
        **{name: (f"skill.{name}", str) for name in _TEXTS}, "category": ("category.name", str),
        "rating_count": ("skill.rating_count", int), "average_rating": ("skill.average_rating", float),
        **{name: (json_column(f"skill.{name}"), partial(json_value, opening="[")) for name in _LISTS},
        **{name: (json_column(f"skill.{name}"), partial(json_value, opening="{")) for name in ("metadata", "extra")},
        "remote_created_at": (time_column("skill.remote_created_at"), stored_stamp),
        **{name: (f"skill.{name}", _whole) for name in ("arrival", "rating_arrival")},
    }  # fmt: skip
    found: dict[str, Any] = {}
    unreadable: list[str] = []
    for name, (column, read) in columns.items():
        try:
            ((value,),) = select(f"SELECT {column} FROM {_HELD_SKILLS} WHERE skill.skill_id = %s", (skill_id,))
            if isinstance(value, bytes):
                raise ValueError("bytes in a text column")
            found[name] = None if value is None else read(value)
        except (UnreadableRowsError, DecodeError, ValueError, OperationalError):
            unreadable.append(name)
    fields = {name: found[name] for name in SKILL_FIELDS if name in found}
    extra = found.get("extra", {})
    return StoredSkill({**SKILL_EMPTY, **fields}, extra, None, 0, None, 0, UNREADABLE), unreadable


def _whole(value: Any) -> int:
    """Return the value of a column of whole numbers; SQLite keeps anything else there, too."""
    if type(value) is not int:
        raise UnreadableRowsError("no whole number")
    return value


# The fingerprint of a stored skill that was read column by column: no record has it.
UNREADABLE = "unreadable"
_UNREADABLE_ERRORS = (UnreadableRowsError, DecodeError)


_HELD_SKILLS = f"{_SKILL} AS skill LEFT JOIN {_CATEGORY} AS category ON category.id = skill.category_id"


def _average_rating(skill_id: str) -> float:
    return float(select(f"SELECT average_rating FROM {_SKILL} WHERE skill_id = %s", (skill_id,))[0][0])


def _slot_columns() -> list[str]:
    return [
        "skill.skill_id", *(f"skill.{name}" for name in _CLOCKS), "category.id", "category.name",
        *(f"skill.{name}" for name in _TEXTS), "skill.rating_count", float_column("skill.average_rating"),
        time_column("skill.remote_created_at"), *(json_column(f"skill.{name}") for name in (*_JSON, "extra")),
    ]  # fmt: skip


class SkillRows(msgspec.Struct, frozen=True, gc=False):
    """Skills ready to be written, but for the time of that and the keys of their categories.

    `whole`: each with its category's name, `None` for none. `found_as_before`: those that search and lists find by what
    they did, so that this need not be written.
    """

    whole: list[tuple[str | None, tuple[Any, ...]]]
    found_as_before: list[tuple[Any, ...]]


def skill_rows(skills: Mapping[str, StoredSkill], before: Mapping[str, Slot]) -> SkillRows:
    """The rows of these skills as they are to be held. `before`: what the database has of them."""
    narrow = narrow_updates_pay()
    rows = SkillRows([], [])
    for skill_id, held in skills.items():
        fields = held.fields
        rest = (
            *_plain_of(fields), json_text(fields["python_packages"]), json_text(fields["npm_packages"]),
            json_text(fields["metadata"]), json_text(held.extra), stamp_value(fields["remote_created_at"]),
            stamp_value(held.updated), stamp_value(held.rated), held.updated, held.arrival, held.rated,
            held.rating_arrival, held.fingerprint, skill_id,
        )  # fmt: skip
        old = before[skill_id]
        name, description, tags, category = found_by = _found_by(fields)
        readable = isinstance(old, StoredSkill) and old.known_fingerprint != UNREADABLE
        if narrow and readable and found_by == _found_by(old.fields):  # type: ignore[union-attr]
            rows.found_as_before.append(rest)
        else:
            rows.whole.append((category, (name, description, json_text(tags), *rest)))
    return rows


def save_skills(rows: SkillRows, category_ids: Mapping[str, int], now: datetime) -> None:
    """Write these skills. Their categories must exist; `category_ids`: keys that are known."""
    synced = moment_value(now)
    ids: dict[Any, Any] = {None: None, **category_ids}
    ids |= load_categories({category for category, _ in rows.whole if category is not None} - ids.keys())[1]
    _SKILLS.insert([(synced, ids[category], *row) for category, row in rows.whole])
    _SKILLS_FOUND_AS_BEFORE.update([(synced, *row) for row in rows.found_as_before])


_plain_of = itemgetter("version", "code", "command", "average_rating", "rating_count")
_found_by = itemgetter("name", "description", "tags", "category")


def remove_skills(graves: Mapping[str, StoredTombstone], now: datetime) -> None:
    """Remove these skills and keep their graves."""
    if not graves:
        return
    removed_skills = moment_value(now)
    _TOMBSTONES.insert(
        [
            (stamp_value(grave.deleted), grave.deleted, grave.arrival, removed_skills, skill_id)
            for skill_id, grave in graves.items()
        ]
    )
    condition, keys = among("skill_id", graves)
    was = f"SELECT id FROM {_SKILL} WHERE {_SKILL}.skill_id = {_GRAVE}.skill_id"
    execute(f"UPDATE {_GRAVE} SET skill_row = COALESCE(({was}), skill_row) WHERE {condition}", keys)
    execute(f"DELETE FROM {_SKILL} WHERE {condition}", keys)


def remove_tombstones(skill_ids: Collection[str]) -> None:
    """Forget the graves of skills that came back."""
    if skill_ids:
        Tombstone.objects.filter(skill_id__in=skill_ids).delete()


def load_categories(names: Collection[str]) -> tuple[dict[str, StoredCategory], dict[str, int]]:
    """What is held of the categories `names`, and their primary keys. One that cannot be read counts as bare."""
    if not names:
        return {}, {}
    try:
        return _load_categories(names)
    except UnreadableRowsError:
        if len(names) == 1:
            keys = dict(Category.objects.filter(name__in=names).values_list("name", "pk"))
            return dict.fromkeys(keys, BARE_CATEGORY), keys
    found = [load_categories([name]) for name in names]
    return {n: one for held, _ in found for n, one in held.items()}, {n: k for _, ks in found for n, k in ks.items()}


def _load_categories(names: Collection[str]) -> tuple[dict[str, StoredCategory], dict[str, int]]:
    held: dict[str, StoredCategory] = {}
    keys: dict[str, int] = {}
    condition, parameters = among("name", names)
    created_at = time_column("remote_created_at")
    for name, key, description, icon_url, skill_count, created, updated, arrival in rows(
        ("name", "id", "description", "icon_url", "skill_count", created_at, "updated_stamp", "arrival"),
        f"{_CATEGORY} WHERE {condition}",
        parameters,
    ):
        fields = {
            "description": description, "icon_url": icon_url, "skill_count": _whole(skill_count),
            "remote_created_at": stored_stamp(created),
        }  # fmt: skip
        held[name] = StoredCategory(fields, Stamp(updated) if updated else None, _whole(arrival))
        keys[name] = key
    return held, keys


def save_categories(categories: Mapping[str, StoredCategory]) -> dict[str, int]:
    """Write these categories; their primary keys by name."""
    if not categories:
        return {}
    Category.objects.bulk_create(
        [
            Category(
                name=name,
                description=held.fields["description"],
                icon_url=held.fields["icon_url"],
                skill_count=held.fields["skill_count"],
                remote_created_at=moment_of(created) if (created := held.fields["remote_created_at"]) else None,
                remote_updated_at=moment_of(held.updated) if held.updated else None,
                updated_stamp=held.updated,
                arrival=held.arrival,
            )
            for name, held in categories.items()
        ],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=[
            "description", "icon_url", "skill_count", "remote_created_at", "remote_updated_at", "updated_stamp",
            "arrival",
        ],
    )  # fmt: skip
    return dict(Category.objects.filter(name__in=list(categories)).values_list("name", "pk"))
