"""Find listing rows that change nothing by their fingerprint alone, without reading the stored rows."""

from collections import Counter
from collections.abc import Mapping, Sequence

from marketplace_sync.engine.merge import Slot, StoredSkill, record_fingerprint
from marketplace_sync.mirror.arrived import Arrived, Item
from marketplace_sync.mirror.draft import CATEGORY_EVENTS
from marketplace_sync.mirror.load import load_fingerprints
from marketplace_sync.protocol.events import SkillRecord


def unchanged_rows(items: Sequence[Item], planned: Mapping[str, Slot]) -> frozenset[int]:
    """Return the indexes of listing rows that equal the mirror.

    `planned` counts as stored. A skill that two items name is left out, as the other item may change it first; and so
    is a row that must be compared with the stored row itself (`by_row`).
    """
    rows = _comparable_rows(items)
    if not rows:
        return frozenset()
    stored = _fingerprints([row.skill_id for row in rows.values()], planned)
    return frozenset(
        index
        for index, row in rows.items()
        if (fingerprint := stored.get(row.skill_id)) is not None and record_fingerprint(row) == fingerprint
    )


def _comparable_rows(items: Sequence[Item]) -> dict[int, SkillRecord]:
    """Return the rows that a fingerprint can decide, by index."""
    rows = {
        index: item.event
        for index, item in enumerate(items)
        if isinstance(item, Arrived) and item.polled and not item.by_row and isinstance(item.event, SkillRecord)
    }
    if not rows:
        return rows
    named = Counter(
        [
            item.event.skill_id
            for item in items
            if isinstance(item, Arrived) and not isinstance(item.event, CATEGORY_EVENTS)
        ]
    )
    return {index: row for index, row in rows.items() if named[row.skill_id] == 1}


def _fingerprints(skill_ids: Sequence[str], planned: Mapping[str, Slot]) -> dict[str, str]:
    stored = load_fingerprints([skill_id for skill_id in skill_ids if skill_id not in planned])
    for skill_id in skill_ids:
        if isinstance(slot := planned.get(skill_id), StoredSkill):
            stored[skill_id] = slot.fingerprint
    return stored
