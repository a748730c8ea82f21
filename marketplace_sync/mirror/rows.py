"""Skills, graves and categories between the database and the values that `engine.merge` decides on."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from operator import itemgetter

from marketplace_sync.engine.merge import Grave, HeldCategory, HeldSkill, Slot
from marketplace_sync.mirror.sql import (
    Bulk,
    among,
    execute,
    held_stamp,
    json_columns,
    json_value,
    moment_value,
    stamp_value,
    time_column,
)
from marketplace_sync.models import Category, Skill, Tombstone
from marketplace_sync.protocol.stamps import Stamp, moment_of

_TEXTS = ("name", "description", "version", "code", "command")
_JSON = ("python_packages", "npm_packages", "tags", "metadata")
_FIGURES = ("average_rating", "rating_count")
_CLOCKS = ("updated_stamp", "arrival", "rating_stamp", "rating_arrival", "fingerprint")

_REST = (
    "version", "code", "command", *_FIGURES, "python_packages", "npm_packages", "metadata", "extra",
    "remote_created_at", "remote_updated_at", "rating_at", "synced_at", *_CLOCKS,
)  # fmt: skip
# What search, and the lists by name and category, are found by. To write these columns, changed or not, is to write
# their indexes: SQLite takes 54 us for such an update, and 21 us for one that leaves them alone, as most do.
_FOUND_BY = ("name", "description", "tags", "category_id")
_SKILLS = Bulk(Skill, (*_FOUND_BY, *_REST, "skill_id"), keyed=True)
_SKILLS_FOUND_AS_BEFORE = Bulk(Skill, (*_REST, "skill_id"), keyed=True)
_GRAVES = Bulk(Tombstone, ("deleted_at", "deleted_stamp", "arrival", "buried_at", "skill_id"), keyed=True)
_SKILL, _GRAVE, _CATEGORY = (model._meta.db_table for model in (Skill, Tombstone, Category))


_HELD = ("category", *_TEXTS, *_FIGURES, *_JSON, "remote_created_at")


def load_fingerprints(skill_ids: Collection[str]) -> dict[str, str]:
    """The fingerprints of those of `skill_ids` that the mirror has."""
    condition, keys = among("skill_id", skill_ids)
    return dict(execute(f"SELECT skill_id, fingerprint FROM {_SKILL} WHERE {condition}", keys))


def load_slots(skill_ids: Collection[str]) -> dict[str, Slot]:
    """What is held of each of `skill_ids`: a skill, a grave, or `None`."""
    slots: dict[str, Slot] = dict.fromkeys(skill_ids)
    if not slots:
        return slots
    condition, keys = among("skill.skill_id", slots)
    for skill_id, json, updated, arrival, rated, rating_arrival, fingerprint, created, *held in execute(
        f"SELECT skill.skill_id, {json_columns('skill', (*_JSON, 'extra'))}, {_listed('skill', _CLOCKS)}, "
        f"{time_column('skill.remote_created_at')}, category.name, {_listed('skill', (*_TEXTS, *_FIGURES))} "
        f"FROM {_SKILL} AS skill LEFT JOIN {_CATEGORY} AS category ON category.id = skill.category_id "
        f"WHERE {condition}",
        keys,
    ):
        *lists, extra = json_value(json)
        fields = dict(zip(_HELD, (*held, *lists, held_stamp(created)), strict=True))
        slots[skill_id] = HeldSkill(fields, extra, updated, arrival, rated, rating_arrival, fingerprint)
    missing = [skill_id for skill_id, slot in slots.items() if slot is None]
    if missing:
        condition, keys = among("skill_id", missing)
        graves = execute(f"SELECT skill_id, deleted_stamp, arrival FROM {_GRAVE} WHERE {condition}", keys)
        for skill_id, deleted, arrival in graves:
            slots[skill_id] = Grave(Stamp(deleted) if deleted else None, arrival)
    return slots


def _listed(table: str, columns: Iterable[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in columns)


def save_skills(
    skills: Mapping[str, HeldSkill], before: Mapping[str, Slot], category_ids: Mapping[str, int], now: datetime
) -> None:
    """Write these skills as they are to be held. Their categories must exist: `category_ids` by name.

    `before`: what the database has of them.
    """
    synced = moment_value(now)
    whole, found_as_before = [], []
    for skill_id, held in skills.items():
        fields = held.fields
        rest = (
            fields["version"], fields["code"], fields["command"], fields["average_rating"],
            fields["rating_count"], fields["python_packages"], fields["npm_packages"], fields["metadata"], held.extra,
            stamp_value(fields["remote_created_at"]), stamp_value(held.updated), stamp_value(held.rated), synced,
            held.updated, held.arrival, held.rated, held.rating_arrival, held.fingerprint, skill_id,
        )  # fmt: skip
        old = before[skill_id]
        name, description, tags, category = found_by = _found_by(fields)
        if isinstance(old, HeldSkill) and found_by == _found_by(old.fields):
            found_as_before.append(rest)
        else:
            whole.append((name, description, tags, None if category is None else category_ids[category], *rest))
    _SKILLS.insert(whole)
    _SKILLS_FOUND_AS_BEFORE.update(found_as_before)


_found_by = itemgetter("name", "description", "tags", "category")


def bury(graves: Mapping[str, Grave], now: datetime) -> None:
    """Remove these skills and keep their graves."""
    if not graves:
        return
    condition, keys = among("skill_id", graves)
    execute(f"DELETE FROM {_SKILL} WHERE {condition}", keys)
    buried = moment_value(now)
    _GRAVES.insert(
        [
            (stamp_value(grave.deleted), grave.deleted, grave.arrival, buried, skill_id)
            for skill_id, grave in graves.items()
        ]
    )


def unbury(skill_ids: Collection[str]) -> None:
    """Forget the graves of skills that came back."""
    if skill_ids:
        Tombstone.objects.filter(skill_id__in=skill_ids).delete()


def load_categories(names: Collection[str]) -> tuple[dict[str, HeldCategory], dict[str, int]]:
    """What is held of the categories `names`, and their primary keys."""
    held: dict[str, HeldCategory] = {}
    keys: dict[str, int] = {}
    if not names:
        return held, keys
    condition, parameters = among("name", names)
    rows = execute(
        f"SELECT name, id, description, icon_url, skill_count, {time_column('remote_created_at')}, updated_stamp, "
        f"arrival FROM {_CATEGORY} WHERE {condition}",
        parameters,
    )
    for name, key, description, icon_url, skill_count, created, updated, arrival in rows:
        fields = {
            "description": description, "icon_url": icon_url, "skill_count": skill_count,
            "remote_created_at": held_stamp(created),
        }  # fmt: skip
        held[name] = HeldCategory(fields, Stamp(updated) if updated else None, arrival)
        keys[name] = key
    return held, keys


def save_categories(categories: Mapping[str, HeldCategory]) -> dict[str, int]:
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
