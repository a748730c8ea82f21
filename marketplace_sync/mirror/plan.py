"""Plan a batch: read what is stored, decide on each item, and make the rows that are to be written.

Items are decided in the order given and folded per key. So a skill is read once and written once per batch, however
many items are about it.

A plan may build on the plan of the batch before it, while that one is being written: what that plan decided counts as
stored. This is right if that batch is written as planned and nobody else writes. Under one lease nobody else does, and
each writing transaction checks that the lease is still ours.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from marketplace_sync.engine.merge import Slot, StoredCategory, StoredSkill, StoredTombstone
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Item, RefusedInput
from marketplace_sync.mirror.draft import Base, Draft, load_draft
from marketplace_sync.mirror.feed import FeedRow, category_change, feed_row, skill_change
from marketplace_sync.mirror.save import SkillRows, skill_rows
from marketplace_sync.mirror.unchanged import unchanged_rows


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The changes of a batch: decided, and not written yet.

    `effects` has one effect per item. `base` is what a plan for the next batch builds on. `fetch`: skills that must be
    fetched; `incomplete`: skills that a stream message created without their code, which a fetch completes.
    `fleeting`: how many skills came and went within the batch, which the feed does not report.

    All other fields are to be written. The tombstones of `revived` are deleted; `category_ids` are the primary keys
    of categories that were read, so that they need not be read again.
    """

    items: Sequence[Item]
    effects: list[Effect]
    base: Base
    fetch: list[str]
    incomplete: list[str]
    fleeting: int
    skill_rows: SkillRows
    removed_skills: Mapping[str, StoredTombstone]
    revived: list[str]
    saved_categories: Mapping[str, StoredCategory]
    removed_categories: list[str]
    category_ids: Mapping[str, int]
    feed: list[FeedRow]
    refused: list[RefusedInput]

    @property
    def writes_nothing(self) -> bool:
        """Return whether the mirror equals the plan already."""
        skills = self.skill_rows.whole or self.skill_rows.found_as_before or self.removed_skills or self.revived
        return not (skills or self.saved_categories or self.removed_categories or self.refused)


def plan_batch(items: Sequence[Item], on: BatchPlan | None = None) -> BatchPlan:
    """Decide on `items`, in order. `on`: a plan that is being written. Raises `BatchTooLargeError`."""
    base = on.base if on is not None else Base()
    unchanged = unchanged_rows(items, base.skills)
    draft = load_draft(_to_decide(items, unchanged), base)
    effects = [_effect(item, draft, index in unchanged) for index, item in enumerate(items)]
    draft.finish()
    return _planned(items, effects, draft)


def can_be_ahead(items: Iterable[Item]) -> bool:
    """Return whether a plan for `items` may build on one that is not written.

    It may not where a category is absent: only the database knows whether other skills are in it.
    """
    return not any(isinstance(item, Arrived) and isinstance(item.event, CategoryAbsent) for item in items)


def _to_decide(items: Sequence[Item], unchanged: frozenset[int]) -> list[Arrived]:
    return [item for index, item in enumerate(items) if isinstance(item, Arrived) and index not in unchanged]


def _effect(item: Item, draft: Draft, unchanged: bool) -> Effect:
    if isinstance(item, RefusedInput):
        return Effect.REFUSED
    return Effect.UNCHANGED if unchanged else draft.decide(item)


def _planned(items: Sequence[Item], effects: list[Effect], draft: Draft) -> BatchPlan:
    """Sort what a draft has changed by how it is written."""
    changed = {key: after for key, after in draft.after.items() if after is not draft.before[key]}
    kept = {key: after for key, after in changed.items() if isinstance(after, StoredSkill)}
    removed = {key: after for key, after in changed.items() if isinstance(after, StoredTombstone)}
    saved_categories = {name: one for name in draft.category_origin if (one := draft.categories[name]) is not None}
    removed_categories = [
        name for name in draft.category_origin if draft.categories[name] is None and name in draft.category_ids
    ]
    feed, fleeting = _skill_feed(draft)
    return BatchPlan(
        items=items,
        effects=effects,
        base=Base(draft.after, draft.categories),
        fetch=draft.fetch,
        incomplete=draft.incomplete,
        fleeting=fleeting,
        skill_rows=skill_rows(kept, draft.before),
        removed_skills=removed,
        revived=[key for key in kept if isinstance(draft.before[key], StoredTombstone)],
        saved_categories=saved_categories,
        removed_categories=removed_categories,
        category_ids=draft.category_ids,
        # A subscriber gets a category before the skills in it, and its removal after theirs.
        feed=[*_category_feed(draft, saved_categories), *feed, *_category_feed(draft, removed_categories)],
        refused=[item for item in items if isinstance(item, RefusedInput)],
    )


def _skill_feed(draft: Draft) -> tuple[list[FeedRow], int]:
    """Return one feed row per changed skill, and how many skills came and went without one."""
    feed: list[FeedRow] = []
    fleeting = 0
    for key, item in draft.origin.items():
        after: Slot = draft.after[key]
        if (change := skill_change(key, draft.before[key], after)) is not None:
            feed.append(feed_row(key, change, item.source, item.run_id))
        elif isinstance(after, StoredTombstone):
            fleeting += 1
    return feed, fleeting


def _category_feed(draft: Draft, names: Iterable[str]) -> Iterator[FeedRow]:
    for name in names:
        item = draft.category_origin[name]
        if change := category_change(name, draft.categories_before.get(name), draft.categories[name]):
            yield feed_row(name, change, item.source, item.run_id)
