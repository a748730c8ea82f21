"""Rows of the change feed: each change as subscribers see it, in the public names and forms."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from marketplace_sync.engine.merge import Slot, StoredCategory, StoredSkill, StoredTombstone
from marketplace_sync.mirror.dialects import BulkTable, dialect
from marketplace_sync.mirror.lease import Head
from marketplace_sync.mirror.values import json_text, moment_value
from marketplace_sync.models import FeedChange
from marketplace_sync.protocol.events import CATEGORY_FIELDS, RATING_FIELDS, SKILL_FIELDS
from marketplace_sync.protocol.stamps import Stamp, to_microseconds

Kind = FeedChange.Kind

# Kind, changed fields and data of a feed row.
FeedContent = tuple[FeedChange.Kind, list[str], dict[str, Any]]

# Fields whose change alone makes a `rating_changed`.
_RATING = frozenset((*RATING_FIELDS, "rating_at"))
# Fields that are shown as they are stored; times are not.
_SHOWN = tuple(name for name in SKILL_FIELDS if name != "remote_created_at")


def time_text(stamp: Stamp | None) -> str | None:
    """Return a server time as the API shows it: ISO 8601, UTC, at most microseconds; `None` for none."""
    return to_microseconds(stamp) + "Z" if stamp else None


def skill_view(skill_id: str, stored: StoredSkill) -> dict[str, Any]:
    """Return the whole record as subscribers see it."""
    return {
        "skill_id": skill_id,
        **{name: stored.fields[name] for name in _SHOWN},
        "extra": stored.extra,
        "remote_created_at": time_text(stored.fields["remote_created_at"]),
        "remote_updated_at": time_text(stored.updated),
        "rating_at": time_text(stored.rated),
    }


def category_view(name: str, stored: StoredCategory) -> dict[str, Any]:
    """Return the whole record as subscribers see it."""
    return {
        "name": name,
        **{field: stored.fields[field] for field in CATEGORY_FIELDS if field != "remote_created_at"},
        "remote_created_at": time_text(stored.fields["remote_created_at"]),
        "remote_updated_at": time_text(stored.updated),
    }


def skill_change(skill_id: str, before: Slot, after: Slot) -> FeedContent | None:
    """Return kind, changed fields and data of a skill's change; `None` when subscribers would see no difference."""
    match after:
        case StoredSkill() if isinstance(before, StoredSkill):
            changed = _skill_difference(before, after)
            if not changed:
                return None
            kind = Kind.RATING_CHANGED if changed.keys() <= _RATING else Kind.SKILL_UPDATED
            return kind, sorted(changed), changed
        case StoredSkill():
            return Kind.SKILL_CREATED, [], skill_view(skill_id, after)
        case StoredTombstone() if isinstance(before, StoredSkill):
            return Kind.SKILL_DELETED, [], {"deleted_at": time_text(after.deleted)}
        case StoredTombstone():
            return None
        case None if isinstance(before, StoredSkill):
            raise ValueError(f"skill {skill_id} was removed without a tombstone")
        case None:
            return None
        case _:
            assert_never(after)


def category_change(name: str, before: StoredCategory | None, after: StoredCategory | None) -> FeedContent | None:
    """Return the same for a category. `None` before or after: it does not exist then."""
    if after is None:
        return (Kind.CATEGORY_DELETED, [], {}) if before else None
    if before is None:
        return Kind.CATEGORY_CREATED, [], category_view(name, after)
    changed = _difference(category_view(name, before), category_view(name, after))
    return (Kind.CATEGORY_UPDATED, sorted(changed), changed) if changed else None


# A feed row without its number and its time: see `_ROWS`.
FeedRow = tuple[int | None, str, str, str, str, str]


def feed_row(key: str, change: FeedContent, source: FeedChange.Source, run_id: int | None) -> FeedRow:
    """Return a change ready for `append`. `run_id`: the sync run that reported it, if any."""
    kind, names, data = change
    return run_id, kind.value, key, source.value, json_text(names), json_text(data)


_ROWS = BulkTable(FeedChange, ("at", "run_id", "kind", "key", "source", "fields", "data", "seq"))


def append(rows: Sequence[FeedRow], head: Head) -> None:
    """Append `rows` in order; they get their feed numbers here, under the lease's lock."""
    at = moment_value(head.now)
    dialect().insert(_ROWS, [(at, *row, head.next_seq()) for row in rows])


def _skill_difference(before: StoredSkill, after: StoredSkill) -> dict[str, Any]:
    """Return the differences that subscribers see, without building both views."""
    old_fields, fields = before.fields, after.fields
    changed = {name: fields[name] for name in _SHOWN if fields[name] != old_fields[name]}
    if after.extra != before.extra:
        changed["extra"] = after.extra
    for name, old, new in (
        ("remote_created_at", old_fields["remote_created_at"], fields["remote_created_at"]),
        ("remote_updated_at", before.updated, after.updated),
        ("rating_at", before.rated, after.rated),
    ):
        if old != new and (text := time_text(new)) != time_text(old):
            changed[name] = text
    return changed


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if before[name] != value}
