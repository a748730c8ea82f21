"""Skills, graves and categories between the database and the values that `engine.merge` decides on."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from marketplace_sync.engine.merge import Grave, HeldCategory, HeldSkill, Slot
from marketplace_sync.mirror.sql import json_text, moment_value, run_many, stamp_value, upsert_sql
from marketplace_sync.models import Category, Skill, Tombstone
from marketplace_sync.protocol.stamps import Stamp, moment_of, stamp_of

_PLAIN = (
    "name", "description", "version", "code", "command", "python_packages", "npm_packages", "tags", "metadata",
    "average_rating", "rating_count",
)  # fmt: skip
_CLOCKS = ("updated_stamp", "arrival", "rating_stamp", "rating_arrival", "fingerprint")
_JSON = frozenset(("python_packages", "npm_packages", "tags", "metadata"))


def load_fingerprints(skill_ids: Collection[str]) -> dict[str, str]:
    """The fingerprints of those of `skill_ids` that the mirror has."""
    return dict(Skill.objects.filter(skill_id__in=skill_ids).values_list("skill_id", "fingerprint"))


def load_slots(skill_ids: Collection[str]) -> dict[str, Slot]:
    """What is held of each of `skill_ids`: a skill, a grave, or `None`."""
    slots: dict[str, Slot] = dict.fromkeys(skill_ids)
    if not slots:
        return slots
    rows = Skill.objects.filter(skill_id__in=skill_ids).values_list(
        "skill_id", "category__name", "remote_created_at", "extra", *_CLOCKS, *_PLAIN
    )
    for skill_id, category, created, extra, updated, arrival, rated, rating_arrival, fingerprint, *plain in rows:
        fields: dict[str, Any] = dict(zip(_PLAIN, plain, strict=True))
        fields["category"] = category
        fields["remote_created_at"] = stamp_of(created) if created else None
        slots[skill_id] = HeldSkill(fields, extra, updated, arrival, rated, rating_arrival, fingerprint)
    missing = [skill_id for skill_id, slot in slots.items() if slot is None]
    graves = Tombstone.objects.filter(skill_id__in=missing).values_list("skill_id", "deleted_stamp", "arrival")
    for skill_id, deleted, arrival in graves:
        slots[skill_id] = Grave(Stamp(deleted) if deleted else None, arrival)
    return slots


_SKILL_COLUMNS = (
    "skill_id", *_PLAIN, "extra", "category_id", "remote_created_at", "remote_updated_at", "rating_at", "synced_at",
    *_CLOCKS,
)  # fmt: skip


_SKILL_UPSERT = upsert_sql(Skill, "skill_id", _SKILL_COLUMNS)
_GRAVE_UPSERT = upsert_sql(Tombstone, "skill_id", ("skill_id", "deleted_at", "deleted_stamp", "arrival", "buried_at"))


def save_skills(skills: Mapping[str, HeldSkill], category_ids: Mapping[str, int], now: datetime) -> None:
    """Write these skills as they are to be held. Their categories must exist: `category_ids` by name."""
    if not skills:
        return
    synced = moment_value(now)
    rows = []
    for skill_id, held in skills.items():
        fields = held.fields
        plain = [json_text(fields[name]) if name in _JSON else fields[name] for name in _PLAIN]
        category = fields["category"]
        rows.append(
            (
                skill_id,
                *plain,
                json_text(held.extra),
                category_ids[category] if category is not None else None,
                stamp_value(fields["remote_created_at"]),
                stamp_value(held.updated),
                stamp_value(held.rated),
                synced,
                held.updated,
                held.arrival,
                held.rated,
                held.rating_arrival,
                held.fingerprint,
            )
        )
    run_many(_SKILL_UPSERT, rows)


def bury(graves: Mapping[str, Grave], now: datetime) -> None:
    """Remove these skills and keep their graves."""
    if not graves:
        return
    Skill.objects.filter(skill_id__in=list(graves)).delete()
    buried = moment_value(now)
    run_many(
        _GRAVE_UPSERT,
        [
            (skill_id, stamp_value(grave.deleted), grave.deleted, grave.arrival, buried)
            for skill_id, grave in graves.items()
        ],
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
    for row in Category.objects.filter(name__in=names):
        held[row.name] = HeldCategory(
            {
                "description": row.description,
                "icon_url": row.icon_url,
                "skill_count": row.skill_count,
                "remote_created_at": stamp_of(row.remote_created_at) if row.remote_created_at else None,
            },
            Stamp(row.updated_stamp) if row.updated_stamp else None,
            row.arrival,
        )
        keys[row.name] = row.pk
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
