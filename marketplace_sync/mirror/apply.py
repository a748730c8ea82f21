"""The one way into the mirror (law 1): stream, listing, single fetch and replay all go through `apply_batch`.

A batch is one transaction under the lease: skills, graves, categories, dead letters and feed rows
together. What they will be is a `BatchPlan`, made in the transaction; or before it, while another is being written
(`apply_planned`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from marketplace_sync.mirror.arrived import Effect, Item, RefusedInput
from marketplace_sync.mirror.dead_letters import save_dead_letters
from marketplace_sync.mirror.feed import FeedRow, append, category_change, feed_row
from marketplace_sync.mirror.lease import Head, Lease
from marketplace_sync.mirror.plan import BatchPlan
from marketplace_sync.mirror.rows import remove_skills, save_categories, save_skills, unbury
from marketplace_sync.models import Category

# From so many items on, PostgreSQL has rows by COPY sooner than in one exchange with all else. (BEGIN and COMMIT within
# that exchange, which needs another transaction than Django's, gained nothing: 0.51 ms instead of 0.52 for a message.)
_MANY = 200


@dataclass(slots=True)
class BatchResult:
    """What came of a batch: `effects` item by item, the last feed number given, and what must be fetched.

    `feed_seq` is `None` where nothing had to be written, and nobody looked.
    `incomplete` are skills that the stream made known without their code: a fetch completes them. So many as `fleeting`
    came and went: their effects say so, the mirror and its feed do not.
    """

    effects: list[Effect]
    feed_seq: int | None
    fetch: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    fleeting: int = 0

    @classmethod
    def of(cls, plan: BatchPlan, feed_seq: int | None) -> Self:
        """What came of this plan. `feed_seq` `None`: it `writes_nothing`."""
        return cls(plan.effects, feed_seq, plan.fetch, plan.incomplete, plan.fleeting)


def apply_batch(items: Sequence[Item], lease: Lease) -> BatchResult:
    """Apply `items` in order. Raises `LeaseLostError` or `BatchTooLargeError` with nothing written."""
    with lease.locking(few=len(items) < _MANY) as locked:
        plan = BatchPlan(items)
        return _result(plan, locked())


def apply_planned(plan: BatchPlan, lease: Lease) -> BatchResult:
    """Write what was planned. Raises `LeaseLostError` with nothing written.

    Once: a plan that may have been written is no longer true of what is held.
    """
    with lease.locking(few=len(plan.items) < _MANY) as locked:
        return _result(plan, locked())


def _result(plan: BatchPlan, head: Head) -> BatchResult:
    _write(plan, head)
    save_dead_letters([item for item in plan.items if isinstance(item, RefusedInput)], head.now)
    return BatchResult.of(plan, head.feed_seq)


def _write(plan: BatchPlan, head: Head) -> None:
    """Write what changed and tell the feed, one row a key."""
    changed = {name: held for name in plan.category_origin if (held := plan.categories[name]) is not None}
    plan.category_ids.update(save_categories(changed))
    save_skills(plan.skill_rows, plan.category_ids, head.now)
    remove_skills(plan.removed_skills, head.now)
    unbury(plan.revived)
    gone = [name for name in plan.category_origin if plan.categories[name] is None and plan.category_ids.get(name)]
    if gone:
        Category.objects.filter(name__in=gone).delete()
    append([*_told(plan, changed), *plan.tell, *_told(plan, gone)], head)


def _told(plan: BatchPlan, names: Iterable[str]) -> Iterator[FeedRow]:
    """What the feed has to say of these categories."""
    for name in names:
        if change := category_change(name, plan.categories_before.get(name), plan.categories[name]):
            yield feed_row(name, change, plan.category_origin[name].source, plan.category_origin[name].run_id)
