"""The one way into the mirror (law 1): stream, listing, single fetch and replay all go through `apply_batch`.

A batch is one transaction under the lease: skills, tombstones, categories, dead letters and feed rows together. What
they are is a `BatchPlan`. It is made within the transaction, or before it while another batch is written
(`apply_planned`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.mirror.dead_letters import save_dead_letters
from marketplace_sync.mirror.feed import append
from marketplace_sync.mirror.lease import Head, Lease
from marketplace_sync.mirror.plan import BatchPlan, plan_batch
from marketplace_sync.mirror.save import remove_skills, remove_tombstones, save_categories, save_skills
from marketplace_sync.models import Category

# From so many items on, PostgreSQL takes rows by COPY faster than in one exchange with all other statements. (BEGIN and
# COMMIT within that exchange, which needs another transaction than Django's, gained nothing: 0.51 ms per message
# instead of 0.52.)
_MANY = 200


@dataclass(slots=True)
class BatchResult:
    """The result of a batch: one effect per item, and the last feed number given.

    `feed_seq` is `None` where nothing was to be written, so that it was not read. `fetch`, `incomplete`, `fleeting`:
    see `BatchPlan`.
    """

    effects: list[Effect]
    feed_seq: int | None
    fetch: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    fleeting: int = 0

    @classmethod
    def of(cls, plan: BatchPlan, feed_seq: int | None) -> Self:
        """Return the result of a plan. `feed_seq`: `None` for a plan that `writes_nothing`."""
        return cls(plan.effects, feed_seq, plan.fetch, plan.incomplete, plan.fleeting)


def apply_batch(items: Sequence[Item], lease: Lease) -> BatchResult:
    """Apply `items` in order. Raises `LeaseLostError` or `BatchTooLargeError` with nothing written."""
    with lease.locking(few=len(items) < _MANY) as locked:
        plan = plan_batch(items)
        return _write(plan, locked())


def apply_planned(plan: BatchPlan, lease: Lease) -> BatchResult:
    """Write a plan. Raises `LeaseLostError` with nothing written.

    Call it once: after its own commit, a plan no longer describes what is stored.
    """
    with lease.locking(few=len(plan.items) < _MANY) as locked:
        return _write(plan, locked())


def _write(plan: BatchPlan, head: Head) -> BatchResult:
    """Write the rows of a plan, and one feed row per changed key."""
    category_ids = {**plan.category_ids, **save_categories(plan.saved_categories)}
    save_skills(plan.skill_rows, category_ids, head.now)
    remove_skills(plan.removed_skills, head.now)
    remove_tombstones(plan.revived)
    if plan.removed_categories:
        Category.objects.filter(name__in=plan.removed_categories).delete()
    append(plan.feed, head)
    save_dead_letters(plan.refused, head.now)
    return BatchResult.of(plan, head.feed_seq)
