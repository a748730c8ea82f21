"""Decide item by item what becomes of the skills and categories that a batch is about. Nothing is written here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from marketplace_sync.engine.merge import (
    BARE_CATEGORY,
    MergeOutcome,
    Slot,
    StoredCategory,
    StoredSkill,
    merge_absence,
    merge_category,
    merge_change,
)
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Event, SkillAbsent
from marketplace_sync.mirror.load import load_categories, load_stored, stored_bytes
from marketplace_sync.mirror.soundness import unsound_categories, unsound_skills
from marketplace_sync.models import Skill
from marketplace_sync.protocol.events import CategoryRecord, SkillChange, SkillRecord

# A message of a few hundred bytes may be about a skill of 1 MiB. So the size of the stored rows is read before the
# rows, unless there are so few that they fit in any case.
MAX_STORED_BYTES = 32 * 1024 * 1024
_FEW_KEYS = 32

# The events that are about a category; all others are about a skill.
CATEGORY_EVENTS = (CategoryRecord, CategoryAbsent)


class BatchTooLargeError(Exception):
    """The stored rows of the batch's skills need too much memory. Plan fewer items at a time."""


@dataclass(frozen=True, slots=True)
class Base:
    """The skills and categories of an earlier batch that is being written, as it leaves them; by id and by name.

    It counts as stored. What it does not contain is read from the database.
    """

    skills: Mapping[str, Slot] = field(default_factory=dict)
    categories: Mapping[str, StoredCategory | None] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """The skills and categories of a batch: as stored (`before`), and as its items change them, in order.

    `origin` and `category_origin` have the last item that changed a skill or category. `fetch`: skills that must be
    fetched. `incomplete`: skills that a stream message created without their code, which a fetch completes.
    `category_ids`: the primary keys of categories, as far as they were read. `used_categories`: categories that exist
    for certain, as a stored skill is in them. `unsound_skills`, `unsound_categories`: see `mirror.soundness`.
    """

    before: Mapping[str, Slot]
    categories_before: Mapping[str, StoredCategory | None]
    category_ids: Mapping[str, int]
    used_categories: set[Any]
    unsound_skills: set[str]
    unsound_categories: set[str]
    after: dict[str, Slot] = field(init=False)
    categories: dict[str, StoredCategory | None] = field(init=False)
    origin: dict[str, Arrived] = field(default_factory=dict)
    category_origin: dict[str, Arrived] = field(default_factory=dict)
    fetch: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.after = dict(self.before)
        self.categories = dict(self.categories_before)

    def decide(self, item: Arrived) -> Effect:
        """Merge one event, and return what it does to the mirror."""
        event = item.event
        if not isinstance(event, CATEGORY_EVENTS):
            return self._decide_skill(item, event)
        if isinstance(event, CategoryAbsent):
            return self._decide_category_absence(item, event)
        return self._decide_category(item, event)

    def finish(self) -> None:
        """Compute the fingerprints of the changed skills: one per skill, however many items changed it."""
        for key in self.origin:
            if isinstance(skill := self.after[key], StoredSkill):
                self.after[key] = skill.with_fingerprint()

    def _decide_skill(self, item: Arrived, event: SkillChange | SkillAbsent) -> Effect:
        key = event.skill_id
        before = self.after[key]
        after, outcome = self._merge_skill(before, item, event)
        self.after[key] = after
        match outcome:
            case MergeOutcome.UNCHANGED:
                # The same arrival is stored: this is another attempt after a commit whose answer was lost.
                if isinstance(before, StoredSkill) and before.arrival == item.arrival and not before.fields["code"]:
                    self._note_incomplete(item, event)
                return Effect.UNCHANGED
            case MergeOutcome.STALE:
                return Effect.STALE
            case MergeOutcome.FETCH:
                self.fetch.append(key)
                return Effect.FETCH
            case MergeOutcome.APPLIED:
                return self._note_change(item, event, before, after)
            case _:
                assert_never(outcome)

    def _note_change(self, item: Arrived, event: SkillChange | SkillAbsent, before: Slot, after: Slot) -> Effect:
        key = event.skill_id
        self.origin[key] = item
        self.unsound_skills.discard(key)
        if not isinstance(after, StoredSkill):
            return Effect.REMOVED
        self._create_category_of(after, item)
        if isinstance(before, StoredSkill):
            return Effect.UPDATED
        self._note_incomplete(item, event)
        return Effect.CREATED

    def _merge_skill(self, before: Slot, item: Arrived, event: SkillChange | SkillAbsent) -> tuple[Slot, MergeOutcome]:
        unsound = item.by_row and event.skill_id in self.unsound_skills
        if isinstance(event, SkillAbsent):
            return merge_absence(before, item.arrival, unsound=unsound)
        return merge_change(before, event, item.arrival, polled=item.polled, forced=item.forced, unsound=unsound)

    def _note_incomplete(self, item: Arrived, event: Event) -> None:
        if isinstance(event, SkillRecord) and "code" not in event.fields and not item.polled:
            self.incomplete.append(event.skill_id)

    def _create_category_of(self, skill: StoredSkill, item: Arrived) -> None:
        """Create the category that a skill names, if it does not exist."""
        name = skill.fields["category"]
        if name is not None and name not in self.used_categories and self.categories.get(name) is None:
            self.categories[name] = BARE_CATEGORY
            self.category_origin[name] = item

    def _decide_category(self, item: Arrived, event: CategoryRecord) -> Effect:
        before = self.categories.get(event.name)
        unsound = item.by_row and event.name in self.unsound_categories
        after, outcome = merge_category(before, event, item.arrival, forced=item.forced, unsound=unsound)
        if outcome is not MergeOutcome.APPLIED:
            return Effect.STALE if outcome is MergeOutcome.STALE else Effect.UNCHANGED
        self.categories[event.name] = after
        self.category_origin[event.name] = item
        self.unsound_categories.discard(event.name)
        return Effect.UPDATED if before else Effect.CREATED

    def _decide_category_absence(self, item: Arrived, event: CategoryAbsent) -> Effect:
        before = self.categories.get(event.name)
        if before is None or before.arrival > item.arrival or self._has_skills(event.name):
            return Effect.UNCHANGED
        self.categories[event.name] = None
        self.used_categories.discard(event.name)
        self.category_origin[event.name] = item
        return Effect.REMOVED

    def _has_skills(self, category: str) -> bool:
        """Return whether a skill is in the category, in the database or as this batch leaves it."""
        if any(isinstance(slot, StoredSkill) and slot.fields["category"] == category for slot in self.after.values()):
            return True
        return Skill.objects.filter(category__name=category).exclude(skill_id__in=list(self.after)).exists()


def load_draft(items: Sequence[Arrived], base: Base) -> Draft:
    """Read what is stored of the skills and categories of `items`. Raises `BatchTooLargeError`."""
    before, ids_of_skills = _load_skills(_skill_ids(items), base.skills)
    used = {slot.fields["category"] for slot in before.values() if isinstance(slot, StoredSkill)}
    listed = {item.event.name for item in items if isinstance(item.event, CATEGORY_EVENTS)}
    # A category that a stored skill is in exists. It need not be read unless an item is about itself.
    categories, ids = _load_categories(listed | (_named_categories(items) - used) - {None}, base.categories)
    return Draft(
        before=before,
        categories_before=categories,
        category_ids=ids_of_skills | ids,
        used_categories=used,
        unsound_skills=_unsound_skills(items, before, base),
        unsound_categories=_unsound_categories(items, categories, base),
    )


def _skill_ids(items: Iterable[Arrived]) -> dict[str, None]:
    """Return the skills that items are about, in order."""
    return {item.event.skill_id: None for item in items if not isinstance(item.event, CATEGORY_EVENTS)}


def _named_categories(items: Iterable[Arrived]) -> set[Any]:
    """Return the categories that records of skills name, with `None` where one names none."""
    return {item.event.fields.get("category") for item in items if type(item.event) is SkillRecord}


def _load_skills(skill_ids: Iterable[str], planned: Mapping[str, Slot]) -> tuple[dict[str, Slot], dict[str, int]]:
    """Return what is stored of these skills, and the primary keys of the categories of those that were read."""
    known = {skill_id: planned[skill_id] for skill_id in skill_ids if skill_id in planned}
    others = [skill_id for skill_id in skill_ids if skill_id not in known]
    if len(others) > _FEW_KEYS and stored_bytes(others) > MAX_STORED_BYTES:
        raise BatchTooLargeError
    stored, category_ids = load_stored(others)
    return stored | known, category_ids


def _load_categories(
    names: set[str], planned: Mapping[str, StoredCategory | None]
) -> tuple[dict[str, StoredCategory | None], dict[str, int]]:
    """Return what is stored of these categories, and the primary keys of those that the database has."""
    stored, ids = load_categories(names)
    return {**stored, **{name: planned[name] for name in names if name in planned}}, ids


def _unsound_skills(items: Iterable[Arrived], before: Mapping[str, Slot], base: Base) -> set[str]:
    compared = {item.event.skill_id for item in items if item.by_row and not isinstance(item.event, CATEGORY_EVENTS)}
    return set(unsound_skills({key: before[key] for key in compared if key not in base.skills}))


def _unsound_categories(items: Iterable[Arrived], before: Mapping[str, StoredCategory | None], base: Base) -> set[str]:
    compared = {item.event.name for item in items if item.by_row and isinstance(item.event, CategoryRecord)}
    stored = {name: before.get(name) for name in compared if name not in base.categories}
    return set(unsound_categories({name: category for name, category in stored.items() if category is not None}))
