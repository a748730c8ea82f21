"""Compare the mirror with what the marketplace lists. Reads only."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from marketplace_sync.engine.merge import MergeOutcome, StoredSkill, arrival_number, merge_category, merge_record
from marketplace_sync.mirror.load import load_categories, load_slots
from marketplace_sync.mirror.soundness import unsound_categories, unsound_skills
from marketplace_sync.models import Category, Skill
from marketplace_sync.protocol.events import SKILL_FIELDS, CategoryRecord, SkillRecord
from marketplace_sync.protocol.stamps import Stamp

# Later than everything received: the listing was requested just now.
_NOW = arrival_number(1 << 22, 0)
_LATER = ["remote_updated_at"]


@dataclass(slots=True)
class Difference:
    """The differences between mirror and marketplace.

    `different` names the columns. `refused` are listed records that cannot be read: the mirror does not have their
    content, so it is not in sync. `later` are skills and categories whose reported `updated_at` is later while every
    field is equal: no difference. `unnamed` counts the refused records without a readable id. `misfiled`: see
    `mirror.search_index`.
    """

    missing: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)
    different: dict[str, list[str]] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)
    missing_categories: set[str] = field(default_factory=set)
    extra_categories: set[str] = field(default_factory=set)
    different_categories: dict[str, list[str]] = field(default_factory=dict)
    later_categories: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    unnamed: int = 0
    misfiled: set[str] = field(default_factory=set)

    @property
    def skills(self) -> set[str]:
        """Return all skills that differ."""
        return self.missing | self.extra | self.different.keys()

    @property
    def categories(self) -> set[str]:
        """Return all categories that differ."""
        return self.missing_categories | self.extra_categories | self.different_categories.keys()

    @property
    def in_sync(self) -> bool:
        """Return whether the mirror has all that the marketplace lists, and search finds it."""
        return not self.skills and not self.categories and not self.refused and not self.misfiled


def compare_skills(records: Sequence[SkillRecord], into: Difference) -> Counter[str]:
    """Compare listed records with the stored rows, column by column.

    Return what a full sync would do with them, as counts of "created", "updated", "unchanged" and "stale" (what is
    stored is newer).
    """
    slots = load_slots({record.skill_id for record in records})
    unsound = unsound_skills(slots)
    would: Counter[str] = Counter()
    for record in records:
        slot, contradictory = slots[record.skill_id], unsound.get(record.skill_id, ())
        _, outcome = merge_record(slot, record, _NOW, polled=True, unsound=bool(contradictory))
        if not isinstance(slot, StoredSkill):
            into.missing.add(record.skill_id)
            would["created" if outcome is MergeOutcome.APPLIED else "stale"] += 1
            continue
        _note(record.skill_id, _skill_columns(record, slot, contradictory), into.different, into.later)
        would["updated" if outcome is MergeOutcome.APPLIED else str(outcome)] += 1
    return would


def compare_categories(records: Iterable[CategoryRecord], into: Difference) -> None:
    """Compare the listed categories with the stored rows. A category that a skill names need not be listed."""
    listed = {record.name: record for record in records}
    found, _ = load_categories(list(listed))
    unsound = unsound_categories(found)
    for name, record in listed.items():
        stored = found.get(name)
        if stored is None:
            into.missing_categories.add(name)
            continue
        merged, _ = merge_category(stored, record, _NOW, forced=True)
        assert merged is not None
        columns = [key for key, value in merged.fields.items() if not same_value(stored.fields[key], value)]
        columns = _with_times(columns, stored.updated, merged.updated, unsound.get(name, ()))
        _note(
            name, (columns, _is_later(stored.updated, merged.updated)), into.different_categories, into.later_categories
        )
    unnamed = Category.objects.filter(skills__isnull=True).values_list("name", flat=True)
    into.extra_categories |= set(unnamed) - listed.keys()


def compare_skill(skill_id: str, record: SkillRecord | None, into: Difference) -> None:
    """Compare the answer to a single fetch, `None` for a 404, with the stored row."""
    slot = load_slots([skill_id])[skill_id]
    if record is not None:
        compare_skills([record], into)
    elif isinstance(slot, StoredSkill):
        into.extra.add(skill_id)


def compare_refused(skill_ids: Sequence[str], into: Difference) -> None:
    """Of skills whose listed record cannot be read, note those whose stored row contradicts itself."""
    into.different |= unsound_skills(load_slots(skill_ids))


def unlisted_skills(listed: Container[str]) -> set[str]:
    """Return the stored skills that are not among `listed`."""
    stored = Skill.objects.values_list("skill_id", flat=True)
    return {skill_id for skill_id in stored.iterator() if skill_id not in listed}


def same_value(stored: Any, reported: Any) -> bool:
    """Return whether two JSON values are equal. Other than in Python, `true` is no 1; 1 and 1.0 are, as in `jsonb`."""
    if type(stored) is bool or type(reported) is bool:
        return stored is reported
    if type(stored) is dict and type(reported) is dict:
        return stored.keys() == reported.keys() and all(same_value(stored[key], reported[key]) for key in stored)
    if type(stored) is list and type(reported) is list:
        return len(stored) == len(reported) and all(map(same_value, stored, reported))
    return bool(stored == reported)


def _skill_columns(record: SkillRecord, stored: StoredSkill, unsound: Sequence[str]) -> tuple[list[str], bool]:
    """Return the columns in which the record differs, and whether its time is later.

    A field that a record leaves out stays as it is, so it is no difference. In a row that contradicts itself, unknown
    fields of its own are one.
    """
    # Without the stored fingerprint, since a merge with it would not compare the columns.
    merged, _ = merge_record(replace(stored, known_fingerprint=None), record, _NOW, polled=True, forced=True)
    assert isinstance(merged, StoredSkill)
    columns = [name for name in SKILL_FIELDS if not same_value(stored.fields[name], merged.fields[name])]
    if not same_value(stored.extra, record.extra if unsound else merged.extra):
        columns.append("extra")
    return _with_times(columns, stored.updated, merged.updated, unsound), _is_later(stored.updated, merged.updated)


def _with_times(columns: list[str], stored: Stamp | None, reported: Stamp | None, unsound: Sequence[str]) -> list[str]:
    """Add the columns of another time or of a contradiction to `columns`."""
    # A changed column also makes the fingerprint wrong, so the fingerprint is not reported in addition. If the time at
    # full precision is right, only its column is reported.
    explained = {"fingerprint"} if columns or stored != reported else set()
    explained |= {"updated_stamp"} if stored == reported else set()
    contradictory = [name for name in unsound if name not in explained and name not in columns]
    if stored != reported:
        columns = [*columns, *(name for name in _LATER if name not in contradictory)]
    return [*columns, *contradictory]


def _is_later(stored: Stamp | None, reported: Stamp | None) -> bool:
    return stored is not None and reported is not None and reported > stored


def _note(key: str, found: tuple[list[str], bool], different: dict[str, list[str]], later: set[str]) -> None:
    columns, is_later = found
    if columns == _LATER and is_later:
        later.add(key)
    elif columns:
        different[key] = columns
