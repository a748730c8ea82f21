"""Compare the mirror with the truth: the simulator's own records, not what a client made of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from marketplace_sync.models import Category, FeedChange, Skill, Tombstone
from marketplace_sync.simulator.marketplace import Marketplace

_TEXTS = ("name", "description", "version", "code", "command")
_LISTS = ("python_packages", "npm_packages", "tags", "metadata")
_KNOWN = {*_TEXTS, *_LISTS, "skill_id", "category", "average_rating", "rating_count", "created_at", "updated_at"}

Records = Mapping[str, Mapping[str, Any]]


def time_text(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def stored_skills() -> dict[str, dict[str, Any]]:
    """Every row of the mirror, in the words of the change feed."""
    return {
        row.skill_id: {
            "skill_id": row.skill_id,
            **{name: getattr(row, name) for name in (*_TEXTS, *_LISTS, "average_rating", "rating_count", "extra")},
            "category": row.category.name if row.category else None,
            "remote_created_at": time_text(row.remote_created_at),
            "remote_updated_at": time_text(row.remote_updated_at),
            "rating_at": time_text(row.rating_at),
        }
        for row in Skill.objects.select_related("category")
    }


def stored_categories() -> dict[str, dict[str, Any]]:
    return {
        row.name: {
            "name": row.name, "description": row.description, "icon_url": row.icon_url,
            "skill_count": row.skill_count, "remote_created_at": time_text(row.remote_created_at),
            "remote_updated_at": time_text(row.remote_updated_at),
        }
        for row in Category.objects.all()
    }  # fmt: skip


def true_skill(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of the simulator as the mirror must store it, without the time of the rating."""
    return {
        "skill_id": record["skill_id"],
        **{name: record.get(name) or "" for name in _TEXTS},
        **{name: record.get(name) or ({} if name == "metadata" else []) for name in _LISTS},
        "average_rating": record.get("average_rating"),
        "rating_count": record.get("rating_count") or 0,
        "extra": {name: value for name, value in record.items() if name not in _KNOWN},
        "category": record.get("category"),
        "remote_created_at": _time(record.get("created_at")),
        "remote_updated_at": _time(record.get("updated_at")),
    }


def true_category(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": record["name"], "skill_count": record.get("skill_count") or 0,
        "description": record.get("description") or "", "icon_url": record.get("icon_url") or "",
        "remote_created_at": _time(record.get("created_at")),
        "remote_updated_at": _time(record.get("updated_at")),
    }  # fmt: skip


def from_the_truth(market: Marketplace) -> list[str]:
    """Return how the mirror differs from the marketplace, in any field. No stored skill may have a tombstone."""
    stored = stored_skills()
    found = differences(
        {key: {**row, "rating_at": None} for key, row in stored.items()},
        {key: {**true_skill(record), "rating_at": None} for key, record in market.skills.items()},
    )
    # A category that a skill names is stored though the marketplace does not list it: nobody reported its other fields.
    unlisted = {record.get("category") for record in market.skills.values()} - market.categories.keys() - {None}
    listed = {name: row for name, row in stored_categories().items() if name not in unlisted}
    found += differences(listed, {name: true_category(record) for name, record in market.categories.items()})
    removed = Tombstone.objects.filter(skill_id__in=list(stored)).values_list("skill_id", flat=True)
    return found + [f"{key} is stored and has a tombstone" for key in removed]


def in_the_feed() -> list[str]:
    """Return what is wrong for a client that applies the change feed from its first row: numbers, order, result."""
    changes = list(FeedChange.objects.order_by("seq"))
    numbers = [change.seq for change in changes]
    if numbers != list(range(1, len(numbers) + 1)):
        return [f"the numbers are not 1 to {len(numbers)}: {numbers[:5]} to {numbers[-5:]}"]
    copy = FeedCopy()
    return [*(problem for change in changes if (problem := copy.take(change.kind, change.key, change.data))),
            *copy.from_the_mirror()]  # fmt: skip


class FeedCopy:
    """A copy of the mirror as a client of the feed builds it."""

    def __init__(self) -> None:
        self.skills: dict[str, dict[str, Any]] = {}
        self.categories: dict[str, dict[str, Any]] = {}
        self._newest: dict[tuple[bool, str], datetime] = {}  # the marketplace's own time of the last change

    def take(self, kind: str, key: str, data: dict[str, Any]) -> str:
        """Apply one change; "" or what is wrong with it."""
        rows = self.categories if kind.startswith("category") else self.skills
        what = kind.rpartition("_")[2]
        if (key in rows) == (what == "created"):
            return f"the feed has {kind} of {key}, which is {'there already' if key in rows else 'not there'}"
        if problem := self._back_in_time(kind, key, data):
            return problem
        match what:
            case "created":
                rows[key] = data
            case "deleted":
                del rows[key]
            case _:
                rows[key] = {**rows[key], **data}
        return ""

    def _back_in_time(self, kind: str, key: str, data: Mapping[str, Any]) -> str:
        """Laws 2 and 3: no older record wins, and none revives what is dead."""
        reported = data.get("deleted_at") or data.get("remote_updated_at")
        if reported is None:
            return ""
        known = (kind.startswith("category"), key)
        at, before = datetime.fromisoformat(reported), self._newest.get(known)
        self._newest[known] = at
        return f"the feed has {kind} of {key} as of {at}, after {before}" if before and at < before else ""

    def from_the_mirror(self) -> list[str]:
        """How the copy differs from the mirror itself."""
        return differences(self.skills, stored_skills()) + differences(self.categories, stored_categories())


def differences(found: Records, wanted: Records) -> list[str]:
    """One text a key: what is there of it, against what should be."""
    found_differences = [f"{key} is missing" for key in wanted.keys() - found.keys()]
    found_differences += [f"{key} should not be there" for key in found.keys() - wanted.keys()]
    for key in found.keys() & wanted.keys():
        unlike = [
            name for name in found[key].keys() | wanted[key].keys() if found[key].get(name) != wanted[key].get(name)
        ]
        found_differences += [
            f"{key}.{name} is {found[key].get(name)!r} and not {wanted[key].get(name)!r}" for name in sorted(unlike)
        ]
    return sorted(found_differences)


def _time(text: str | None) -> str | None:
    return time_text(datetime.fromisoformat(text)) if text else None
