"""Write skills, tombstones and categories."""

from collections.abc import Collection, Mapping
from datetime import datetime
from operator import itemgetter
from typing import Any

import msgspec

from marketplace_sync.engine.merge import Slot, StoredCategory, StoredSkill, StoredTombstone
from marketplace_sync.mirror.dialects import BulkTable, dialect
from marketplace_sync.mirror.load import UNREADABLE, load_categories
from marketplace_sync.mirror.values import json_text, moment_value, stamp_value
from marketplace_sync.models import Category, Skill, Tombstone
from marketplace_sync.protocol.stamps import moment_of

# Search and the list by name find a skill by these columns; with its category, the list by category does. To update
# them, changed or not, SQLite takes 54 µs per skill; to leave them alone, as most messages do, 21 µs.
_FOUND_BY = ("name", "description", "tags")
_REST = (
    "version", "code", "command", "average_rating", "rating_count", "python_packages", "npm_packages", "metadata",
    "extra", "remote_created_at", "remote_updated_at", "rating_at", "updated_stamp", "arrival", "rating_stamp",
    "rating_arrival", "fingerprint",
)  # fmt: skip
_SKILLS = BulkTable(Skill, ("synced_at", "category_id", *_FOUND_BY, *_REST, "skill_id"), keyed=True)
_SKILLS_FOUND_AS_BEFORE = BulkTable(Skill, ("synced_at", *_REST, "skill_id"), keyed=True)
_REMOVED_AT = str(Tombstone._meta.get_field("removed_at").column)
_TOMBSTONES = BulkTable(Tombstone, ("deleted_at", "deleted_stamp", "arrival", _REMOVED_AT, "skill_id"), keyed=True)

_plain_values = itemgetter("version", "code", "command", "average_rating", "rating_count")
_found_by = itemgetter("name", "description", "tags", "category")


class SkillRows(msgspec.Struct, frozen=True, gc=False):
    """Skills ready to be written, but for the time of writing and the primary keys of their categories.

    `whole`: each with the name of its category, `None` for none. `found_as_before`: those that search and lists find
    by the same values as before, so that these need not be written.
    """

    whole: list[tuple[str | None, tuple[Any, ...]]]
    found_as_before: list[tuple[Any, ...]]


def skill_rows(skills: Mapping[str, StoredSkill], before: Mapping[str, Slot]) -> SkillRows:
    """Make the rows of these skills. `before`: what the database has of them."""
    narrow = dialect().narrow_updates_pay
    rows = SkillRows([], [])
    for skill_id, skill in skills.items():
        rest = _rest(skill_id, skill)
        name, description, tags, category = found_by = _found_by(skill.fields)
        old = before[skill_id]
        readable = isinstance(old, StoredSkill) and old.known_fingerprint != UNREADABLE
        if narrow and readable and found_by == _found_by(old.fields):  # type: ignore[union-attr]
            rows.found_as_before.append(rest)
        else:
            rows.whole.append((category, (name, description, json_text(tags), *rest)))
    return rows


def _rest(skill_id: str, skill: StoredSkill) -> tuple[Any, ...]:
    """Return the values of `_REST`, and the id."""
    fields = skill.fields
    return (
        *_plain_values(fields), json_text(fields["python_packages"]), json_text(fields["npm_packages"]),
        json_text(fields["metadata"]), json_text(skill.extra), stamp_value(fields["remote_created_at"]),
        stamp_value(skill.updated), stamp_value(skill.rated), skill.updated, skill.arrival, skill.rated,
        skill.rating_arrival, skill.fingerprint, skill_id,
    )  # fmt: skip


def save_skills(rows: SkillRows, category_ids: Mapping[str, int], now: datetime) -> None:
    """Write these skills. Their categories must exist; `category_ids` has primary keys that are known already."""
    synced = moment_value(now)
    ids: dict[Any, Any] = {None: None, **category_ids}
    ids |= load_categories({category for category, _ in rows.whole if category is not None} - ids.keys())[1]
    dialect().insert(_SKILLS, [(synced, ids[category], *row) for category, row in rows.whole])
    dialect().update(_SKILLS_FOUND_AS_BEFORE, [(synced, *row) for row in rows.found_as_before])


def remove_skills(tombstones: Mapping[str, StoredTombstone], now: datetime) -> None:
    """Delete these skills and write their tombstones."""
    if not tombstones:
        return
    removed_at = moment_value(now)
    rows = [
        (stamp_value(tombstone.deleted), tombstone.deleted, tombstone.arrival, removed_at, skill_id)
        for skill_id, tombstone in tombstones.items()
    ]
    dialect().insert(_TOMBSTONES, rows)
    skill, tombstone_table = _SKILLS.name, _TOMBSTONES.name
    condition, keys = dialect().among("skill_id", tombstones)
    key = f"SELECT id FROM {skill} WHERE {skill}.skill_id = {tombstone_table}.skill_id"
    dialect().execute(f"UPDATE {tombstone_table} SET skill_row = COALESCE(({key}), skill_row) WHERE {condition}", keys)
    dialect().execute(f"DELETE FROM {skill} WHERE {condition}", keys)


def remove_tombstones(skill_ids: Collection[str]) -> None:
    """Delete the tombstones of skills that came back."""
    if skill_ids:
        Tombstone.objects.filter(skill_id__in=skill_ids).delete()


def save_categories(categories: Mapping[str, StoredCategory]) -> dict[str, int]:
    """Write these categories and return their primary keys by name."""
    if not categories:
        return {}
    Category.objects.bulk_create(
        [_category(name, category) for name, category in categories.items()],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=[
            "description", "icon_url", "skill_count", "remote_created_at", "remote_updated_at", "updated_stamp",
            "arrival",
        ],
    )  # fmt: skip
    return dict(Category.objects.filter(name__in=list(categories)).values_list("name", "pk"))


def _category(name: str, stored: StoredCategory) -> Category:
    fields = stored.fields
    return Category(
        name=name,
        description=fields["description"],
        icon_url=fields["icon_url"],
        skill_count=fields["skill_count"],
        remote_created_at=moment_of(created) if (created := fields["remote_created_at"]) else None,
        remote_updated_at=moment_of(stored.updated) if stored.updated else None,
        updated_stamp=stored.updated,
        arrival=stored.arrival,
    )
