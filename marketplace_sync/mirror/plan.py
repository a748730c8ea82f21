"""What a batch of items makes of what the mirror holds: read and decided, and not yet written.

Items are decided in the order given, folded per key, so that a skill is read once and written once a batch whatever
happened to it meanwhile.

A plan may be made while the one before it is being written, on top of it: what that one decided counts as held, and of
all else the database has the last word already. That holds as long as the one before is written as planned and nobody
else writes: under one lease nobody does, and the transaction looks whether the lease is still held.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from marketplace_sync.engine.merge import (
    BARE_CATEGORY,
    MergeOutcome,
    Slot,
    StoredCategory,
    StoredSkill,
    StoredTombstone,
    merge_absence,
    merge_category,
    merge_change,
    record_fingerprint,
)
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Event, Item, RefusedInput, SkillAbsent
from marketplace_sync.mirror.feed import FeedRow, feed_row, skill_change
from marketplace_sync.mirror.rows import load_categories, load_fingerprints, load_stored, skill_rows, stored_bytes
from marketplace_sync.mirror.soundness import unsound_categories, unsound_skills
from marketplace_sync.models import Skill
from marketplace_sync.protocol.events import CategoryRecord, SkillChange, SkillRecord

# A few hundred bytes may each be about a skill of a MiB: what is held of them is looked at before it is read. So many
# skills are few enough in any case.
MAX_STORED_BYTES = 32 * 1024 * 1024
_FEW_KEYS = 32


class BatchTooLargeError(Exception):
    """Fewer items are to be planned at a time: the mirror has too much of those that these are about."""


class BatchPlan:
    """What is held of every key that a batch names, before and after, and the `effects` of its items, one each.

    `origin`, `category_origin`: the last item that changed a skill or category. `fetch`: what must be fetched;
    `incomplete`: skills that the stream made known without their code, which a fetch completes. `fleeting`: how many
    skills came and went, untold.

    What is to be written: the `skill_rows` of those that are not as `before`, tombstones to write (`removed_skills`),
    skills whose tombstones are to go (`revived`), categories, letters; and what the feed has to `tell` of skills.
    `writes_nothing`: the mirror is as `items` would have it.
    """

    def __init__(self, items: Sequence[Item], on: "BatchPlan | None" = None) -> None:
        """Decide on `items`, in order. `on`: a plan that is being written. Raises `BatchTooLargeError`."""
        arrived = [item for item in items if isinstance(item, Arrived)]
        self._known_unchanged = _known_unchanged(arrived, on.after if on else {})
        self.items = items
        if self._known_unchanged:
            arrived = [item for item in arrived if id(item) not in self._known_unchanged]
        skills, names = _keys(arrived)
        self.before, held_in = _slots(skills, on)
        by_row = {item.event.skill_id for item in arrived if item.by_row and not isinstance(item.event, _OF_CATEGORIES)}
        planned = on.after if on else {}
        self._unsound = set(unsound_skills({key: self.before[key] for key in by_row if key not in planned}))
        self.after: dict[str, Slot] = dict(self.before)
        # Those that held skills are in exist: nothing more need be known of them, unless they are told of themselves.
        self._in_use = {slot.fields["category"] for slot in self.before.values() if isinstance(slot, StoredSkill)}
        told = {item.event.name for item in arrived if isinstance(item.event, _OF_CATEGORIES)}
        self.categories_before, ids = _categories(names - (self._in_use - told) - {None}, on)
        self.category_ids = held_in | ids
        self._unsound_categories = self._find_unsound_categories(arrived, on)
        self.categories: dict[str, StoredCategory | None] = dict(self.categories_before)
        self.origin: dict[str, Arrived] = {}
        self.category_origin: dict[str, Arrived] = {}
        self.fetch: list[str] = []
        self.incomplete: list[str] = []
        self.effects = [self._decide(item) for item in items]
        for key in self.origin:
            if isinstance(after := self.after[key], StoredSkill):
                self.after[key] = after.with_fingerprint()
        self.tell: list[FeedRow] = []
        self.fleeting = 0
        for key, item in self.origin.items():
            if (change := skill_change(key, self.before[key], self.after[key])) is not None:
                self.tell.append(feed_row(key, change, item.source, item.run_id))
            else:
                self.fleeting += isinstance(self.after[key], StoredTombstone)
        self.removed_skills: dict[str, StoredTombstone] = {}
        self.revived: list[str] = []
        kept = self._split()
        self.skill_rows = skill_rows(kept, self.before)
        letters = any(isinstance(item, RefusedInput) for item in items)
        self.writes_nothing = not (kept or self.removed_skills or self.revived or self.category_origin or letters)

    def _find_unsound_categories(self, arrived: Sequence[Arrived], on: "BatchPlan | None") -> set[str]:
        by_row = {item.event.name for item in arrived if item.by_row and isinstance(item.event, CategoryRecord)}
        planned = on.categories if on else {}
        stored = {name: category for name, category in self.categories_before.items() if name not in planned}
        return set(unsound_categories({name: one for name in by_row if (one := stored.get(name)) is not None}))

    def _split(self) -> dict[str, StoredSkill]:
        """Sort out whose grave is to be dug or to go; what is to be written of skills."""
        kept: dict[str, StoredSkill] = {}
        for key, after in self.after.items():
            before = self.before[key]
            if after is before:
                continue
            if isinstance(after, StoredSkill):
                kept[key] = after
                if isinstance(before, StoredTombstone):
                    self.revived.append(key)
            elif isinstance(after, StoredTombstone):
                self.removed_skills[key] = after
        return kept

    def _decide(self, item: Item) -> Effect:
        if isinstance(item, RefusedInput):
            return Effect.REFUSED
        if id(item) in self._known_unchanged:
            return Effect.UNCHANGED
        event = item.event
        if isinstance(event, _OF_CATEGORIES):
            return self._decide_category(item, event)
        return self._decide_skill(item, event)

    def _decide_skill(self, item: Arrived, event: SkillChange | SkillAbsent) -> Effect:
        key = event.skill_id
        before = self.after[key]
        unsound = item.by_row and key in self._unsound
        if isinstance(event, SkillAbsent):
            after, outcome = merge_absence(before, item.arrival, unsound=unsound)
        else:
            after, outcome = merge_change(
                before, event, item.arrival, polled=item.polled, forced=item.forced, unsound=unsound
            )
        self.after[key] = after
        match outcome:
            case MergeOutcome.UNCHANGED:
                # Its own arrival is there: another try after a commit that nobody heard of, and still to be completed.
                if isinstance(before, StoredSkill) and before.arrival == item.arrival and not before.fields["code"]:
                    self._complete(item, event)
                return Effect.UNCHANGED
            case MergeOutcome.STALE:
                return Effect.STALE
            case MergeOutcome.FETCH:
                self.fetch.append(key)
                return Effect.FETCH
        self.origin[key] = item
        self._unsound.discard(key)
        if not isinstance(after, StoredSkill):
            return Effect.REMOVED
        self._need_category(after, item)
        if isinstance(before, StoredSkill):
            return Effect.UPDATED
        self._complete(item, event)
        return Effect.CREATED

    def _complete(self, item: Arrived, event: Event) -> None:
        if isinstance(event, SkillRecord) and "code" not in event.fields and not item.polled:
            self.incomplete.append(event.skill_id)

    def _need_category(self, held: StoredSkill, item: Arrived) -> None:
        """Categories that a skill names and nobody listed are made."""
        name = held.fields["category"]
        if name is not None and name not in self._in_use and self.categories.get(name) is None:
            self.categories[name] = BARE_CATEGORY
            self.category_origin[name] = item

    def _decide_category(self, item: Arrived, event: CategoryRecord | CategoryAbsent) -> Effect:
        before = self.categories.get(event.name)
        if isinstance(event, CategoryAbsent):
            if before is None or before.arrival > item.arrival or self._named(event.name):
                return Effect.UNCHANGED
            self.categories[event.name] = None
            self._in_use.discard(event.name)
            self.category_origin[event.name] = item
            return Effect.REMOVED
        unsound = item.by_row and event.name in self._unsound_categories
        after, outcome = merge_category(before, event, item.arrival, forced=item.forced, unsound=unsound)
        if outcome is not MergeOutcome.APPLIED:
            return Effect.STALE if outcome is MergeOutcome.STALE else Effect.UNCHANGED
        self.categories[event.name] = after
        self.category_origin[event.name] = item
        self._unsound_categories.discard(event.name)
        return Effect.UPDATED if before else Effect.CREATED

    def _named(self, category: str) -> bool:
        """Does any skill name it, in the mirror or as this batch will leave it?"""
        if any(isinstance(slot, StoredSkill) and slot.fields["category"] == category for slot in self.after.values()):
            return True
        return Skill.objects.filter(category__name=category).exclude(skill_id__in=list(self.after)).exists()


def can_be_ahead(items: Sequence[Item]) -> bool:
    """May these be planned on a plan that is not written? Only the database knows whether a category has skills."""
    return not any(isinstance(item, Arrived) and isinstance(item.event, CategoryAbsent) for item in items)


def _slots(skill_ids: Mapping[str, None], on: BatchPlan | None) -> tuple[dict[str, Slot], dict[str, int]]:
    """What is held of these skills, and the primary keys of the categories of those that the database has."""
    planned = {skill_id: on.after[skill_id] for skill_id in skill_ids if skill_id in on.after} if on else {}
    others = [skill_id for skill_id in skill_ids if skill_id not in planned]
    if len(others) > _FEW_KEYS and stored_bytes(others) > MAX_STORED_BYTES:
        raise BatchTooLargeError
    held, category_ids = load_stored(others)
    return held | planned, category_ids


def _categories(names: set[str], on: BatchPlan | None) -> tuple[dict[str, StoredCategory | None], dict[str, int]]:
    """What is held of these categories, and the primary keys of those that the database has."""
    if on is None:
        return load_categories(names)  # type: ignore[return-value]
    planned = {name: on.categories[name] for name in names if name in on.categories}
    held, ids = load_categories(names)
    return {**held, **planned}, ids


def _known_unchanged(arrived: Sequence[Arrived], planned: Mapping[str, Slot]) -> set[int]:
    """Listing rows that tell what the mirror has, known by their fingerprint alone (identities of items)."""
    if not any(item.polled and not item.by_row for item in arrived):
        return set()
    times_named = Counter([item.event.skill_id for item in arrived if not isinstance(item.event, _OF_CATEGORIES)])
    told = [
        (id(item), item.event)
        for item in arrived
        if item.polled
        and not item.by_row
        and isinstance(item.event, SkillRecord)
        and times_named[item.event.skill_id] == 1
    ]
    held = load_fingerprints([row.skill_id for _, row in told if row.skill_id not in planned])
    for _, row in told:
        if isinstance(slot := planned.get(row.skill_id), StoredSkill):
            held[row.skill_id] = slot.fingerprint
    return {
        identity
        for identity, row in told
        if (fingerprint := held.get(row.skill_id)) is not None and record_fingerprint(row) == fingerprint
    }


_OF_CATEGORIES = (CategoryRecord, CategoryAbsent)


def _keys(arrived: Sequence[Arrived]) -> tuple[dict[str, None], set[Any]]:
    """The skills that items are about, in order, and the categories that they may touch (`None` among them)."""
    skills: dict[str, None] = {}
    categories: set[Any] = set()
    for item in arrived:
        event = item.event
        if isinstance(event, _OF_CATEGORIES):
            categories.add(event.name)
            continue
        skills[event.skill_id] = None
        if type(event) is SkillRecord:
            categories.add(event.fields.get("category"))
    return skills, categories
