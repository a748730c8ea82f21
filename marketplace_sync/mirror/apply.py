"""The one way into the mirror (law 1): stream, listing, single fetch and replay all go through `apply_batch`.

A batch is one transaction under the lease: skills, graves, categories, dead letters and feed rows
together. Items are decided in the order given, folded per key, so that a skill is read once and
written once a batch whatever happened to it meanwhile.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from marketplace_sync.engine.merge import (
    BARE_CATEGORY,
    Grave,
    HeldCategory,
    HeldSkill,
    Outcome,
    Slot,
    merge_absence,
    merge_category,
    merge_deletion,
    merge_rating,
    merge_record,
    record_fingerprint,
)
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Item, Letter, SkillAbsent
from marketplace_sync.mirror.dead_letters import save_letters
from marketplace_sync.mirror.feed import FeedRow, Told, append, category_change, skill_change
from marketplace_sync.mirror.lease import Head, Lease
from marketplace_sync.mirror.rows import (
    bury,
    load_categories,
    load_fingerprints,
    load_slots,
    save_categories,
    save_skills,
    unbury,
)
from marketplace_sync.models import Category, Skill
from marketplace_sync.protocol.events import CategoryRecord, RatingChanged, SkillDeleted, SkillRecord


@dataclass(slots=True)
class BatchResult:
    """What came of a batch: `effects` item by item, the last feed number given, and what must be fetched.

    `incomplete` are skills that the stream made known without their code: a fetch completes them.
    """

    effects: list[Effect]
    feed_seq: int
    fetch: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


def apply_batch(items: Sequence[Item], lease: Lease) -> BatchResult:
    """Apply `items` in order. Raises `LeaseLost` with nothing written."""
    with lease.writing() as head:
        batch = _Batch(items)
        effects = [batch.decide(item) for item in items]
        batch.write(head)
        save_letters([item for item in items if isinstance(item, Letter)], head.now)
        return BatchResult(effects, head.feed_seq, batch.fetch, batch.incomplete)


class _Batch:
    """What is held of every key that a batch names, before and after."""

    def __init__(self, items: Sequence[Item]) -> None:
        arrived = [item for item in items if isinstance(item, Arrived)]
        self.known_unchanged = _known_unchanged(arrived)
        if self.known_unchanged:
            arrived = [item for item in arrived if id(item) not in self.known_unchanged]
        skills, names = _keys(arrived)
        self.before: dict[str, Slot] = load_slots(skills)
        self.after: dict[str, Slot] = dict(self.before)
        names.update(slot.fields["category"] for slot in self.before.values() if isinstance(slot, HeldSkill))
        names.discard(None)
        self.categories_before, self.category_ids = load_categories(names)
        self.categories: dict[str, HeldCategory | None] = dict(self.categories_before)
        self.origin: dict[str, Arrived] = {}  # the last item that changed a skill
        self.category_origin: dict[str, Arrived] = {}
        self.fetch: list[str] = []
        self.incomplete: list[str] = []

    def decide(self, item: Item) -> Effect:
        if isinstance(item, Letter):
            return Effect.REFUSED
        if id(item) in self.known_unchanged:
            return Effect.UNCHANGED
        event = item.event
        if isinstance(event, _OF_CATEGORIES):
            return self._decide_category(item, event)
        return self._decide_skill(item, event)

    def _decide_skill(self, item: Arrived, event: SkillRecord | SkillDeleted | RatingChanged | SkillAbsent) -> Effect:
        key = event.skill_id
        before = self.after[key]
        match event:
            case SkillRecord():
                after, outcome = merge_record(before, event, item.arrival, polled=item.polled, forced=item.forced)
            case SkillDeleted():
                after, outcome = merge_deletion(before, event, item.arrival)
            case RatingChanged():
                after, outcome = merge_rating(before, event, item.arrival)
            case SkillAbsent():
                after, outcome = merge_absence(before, item.arrival)
        self.after[key] = after
        match outcome:
            case Outcome.UNCHANGED:
                return Effect.UNCHANGED
            case Outcome.STALE:
                return Effect.STALE
            case Outcome.FETCH:
                self.fetch.append(key)
                return Effect.FETCH
        self.origin[key] = item
        if not isinstance(after, HeldSkill):
            return Effect.REMOVED
        self._need_category(after, item)
        if isinstance(before, HeldSkill):
            return Effect.UPDATED
        if isinstance(event, SkillRecord) and "code" not in event.fields and not item.polled:
            self.incomplete.append(key)
        return Effect.CREATED

    def _need_category(self, held: HeldSkill, item: Arrived) -> None:
        """Categories that a skill names and nobody listed are made."""
        name = held.fields["category"]
        if name is not None and self.categories.get(name) is None:
            self.categories[name] = BARE_CATEGORY
            self.category_origin[name] = item

    def _decide_category(self, item: Arrived, event: CategoryRecord | CategoryAbsent) -> Effect:
        before = self.categories.get(event.name)
        if isinstance(event, CategoryAbsent):
            if before is None or before.arrival > item.arrival or self._named(event.name):
                return Effect.UNCHANGED
            self.categories[event.name] = None
            self.category_origin[event.name] = item
            return Effect.REMOVED
        after, outcome = merge_category(before, event, item.arrival, forced=item.forced)
        if outcome is not Outcome.APPLIED:
            return Effect.STALE if outcome is Outcome.STALE else Effect.UNCHANGED
        self.categories[event.name] = after
        self.category_origin[event.name] = item
        return Effect.UPDATED if before else Effect.CREATED

    def _named(self, category: str) -> bool:
        """Does any skill name it, in the mirror or as this batch will leave it?"""
        if any(isinstance(slot, HeldSkill) and slot.fields["category"] == category for slot in self.after.values()):
            return True
        return Skill.objects.filter(category__name=category).exclude(skill_id__in=list(self.after)).exists()

    def write(self, head: Head) -> None:
        """Write what changed and tell the feed, one row a key."""
        feed: list[FeedRow] = []

        def tell(key: str, change: Told | None, origin: Arrived) -> None:
            if change:
                feed.append(FeedRow(head.next_seq(), key, change, origin.source, origin.run_id))

        changed = {name: held for name in self.category_origin if (held := self.categories[name]) is not None}
        self.category_ids.update(save_categories(changed))
        for name in changed:
            tell(
                name, category_change(name, self.categories_before.get(name), changed[name]), self.category_origin[name]
            )

        kept, buried, revived = self._split()
        save_skills(kept, self.before, self.category_ids, head.now)
        bury(buried, head.now)
        unbury(revived)
        for key, origin in self.origin.items():
            tell(key, skill_change(key, self.before[key], self.after[key]), origin)

        gone = [name for name in self.category_origin if self.categories[name] is None and self.category_ids.get(name)]
        if gone:
            Category.objects.filter(name__in=gone).delete()
        for name in gone:
            tell(name, category_change(name, self.categories_before.get(name), None), self.category_origin[name])
        append(feed, head.now)

    def _split(self) -> tuple[dict[str, HeldSkill], dict[str, Grave], list[str]]:
        kept: dict[str, HeldSkill] = {}
        buried: dict[str, Grave] = {}
        revived: list[str] = []
        for key, after in self.after.items():
            before = self.before[key]
            if after is before:
                continue
            if isinstance(after, HeldSkill):
                kept[key] = after
                if isinstance(before, Grave):
                    revived.append(key)
            elif isinstance(after, Grave):
                buried[key] = after
        return kept, buried, revived


def _known_unchanged(arrived: Sequence[Arrived]) -> set[int]:
    """Listing rows that tell what the mirror has, known by their fingerprint alone (identities of items)."""
    if not any(item.polled for item in arrived):
        return set()
    times_named = Counter([item.event.skill_id for item in arrived if not isinstance(item.event, _OF_CATEGORIES)])
    told = [
        (id(item), item.event)
        for item in arrived
        if item.polled and type(item.event) is SkillRecord and times_named[item.event.skill_id] == 1
    ]
    held = load_fingerprints([record.skill_id for _, record in told])
    return {
        identity
        for identity, record in told
        if (fingerprint := held.get(record.skill_id)) is not None and record_fingerprint(record) == fingerprint
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
