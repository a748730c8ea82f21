"""How the mirror differs from what the marketplace lists. Reads only."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

from marketplace_sync.engine.merge import (
    HeldSkill,
    Outcome,
    Slot,
    arrival_number,
    merge_category,
    merge_record,
    record_fingerprint,
)
from marketplace_sync.mirror.feed import skill_view
from marketplace_sync.mirror.rows import load_categories, load_slots
from marketplace_sync.models import Category, Skill
from marketplace_sync.protocol.events import CategoryRecord, SkillRecord

# Later than whatever was received: the listing was asked for just now.
_NOW = arrival_number(1 << 22, 0)


@dataclass(slots=True)
class Difference:
    """Where mirror and marketplace differ. Empty: level.

    `different` names the fields. `refused` are listed records that can't be read: the mirror can't
    have them, and they don't make a difference of their own.
    """

    missing: set[str] = field(default_factory=set)
    extra: set[str] = field(default_factory=set)
    different: dict[str, list[str]] = field(default_factory=dict)
    missing_categories: set[str] = field(default_factory=set)
    extra_categories: set[str] = field(default_factory=set)
    different_categories: dict[str, list[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @property
    def skills(self) -> set[str]:
        """All skills that differ, whichever way."""
        return self.missing | self.extra | self.different.keys()

    @property
    def categories(self) -> set[str]:
        return self.missing_categories | self.extra_categories | self.different_categories.keys()

    @property
    def level(self) -> bool:
        return not self.skills and not self.categories


def compare_skills(records: Sequence[SkillRecord], into: Difference) -> Counter[str]:
    """Hold listed records against the mirror.

    What an ordinary pass would do with them comes back as counts of "created", "updated",
    "unchanged" and "stale" (the mirror has heard newer).
    """
    slots = load_slots({record.skill_id for record in records})
    would: Counter[str] = Counter()
    for record in records:
        slot = slots[record.skill_id]
        _, outcome = merge_record(slot, record, _NOW, polled=True)
        if not isinstance(slot, HeldSkill):
            into.missing.add(record.skill_id)
            would["created" if outcome is Outcome.APPLIED else "stale"] += 1
            continue
        if fields := differing_fields(record, slot):
            into.different[record.skill_id] = fields
        would["updated" if outcome is Outcome.APPLIED else str(outcome)] += 1
    return would


def compare_categories(records: Iterable[CategoryRecord], into: Difference) -> None:
    """Hold the listed categories against the mirror. One that a skill names need not be listed."""
    listed = {record.name: record for record in records}
    held, _ = load_categories(list(listed))
    for name, record in listed.items():
        if name not in held:
            into.missing_categories.add(name)
            continue
        merged, _ = merge_category(held[name], record, _NOW, forced=True)
        if merged is None or merged is held[name]:
            continue
        fields = [key for key, value in merged.fields.items() if held[name].fields[key] != value]
        into.different_categories[name] = fields or ["remote_updated_at"]
    unnamed = Category.objects.filter(skills__isnull=True).values_list("name", flat=True)
    into.extra_categories |= set(unnamed) - listed.keys()


def differing_fields(record: SkillRecord, held: Slot) -> list[str]:
    """The fields that the record tells and the mirror has otherwise; all it tells when the mirror lacks it."""
    if not isinstance(held, HeldSkill):
        return sorted(record.fields)
    if record_fingerprint(record) == held.fingerprint:
        return []
    merged, _ = merge_record(held, record, _NOW, polled=True, forced=True)
    assert isinstance(merged, HeldSkill)
    before, after = skill_view(record.skill_id, held), skill_view(record.skill_id, merged)
    # The listing has no word for the ratings' own clock.
    fields = [name for name in after if name != "rating_at" and before[name] != after[name]]
    if not fields and merged.updated != held.updated:
        fields = ["remote_updated_at"]  # by less than a microsecond
    return fields


def unlisted_skills(listed: Container[str]) -> set[str]:
    """Skills of the mirror that are not among `listed`."""
    held = Skill.objects.values_list("skill_id", flat=True)
    return {skill_id for skill_id in held.iterator() if skill_id not in listed}


def held_slot(skill_id: str) -> Slot:
    """What the mirror has of one skill."""
    return load_slots([skill_id])[skill_id]
