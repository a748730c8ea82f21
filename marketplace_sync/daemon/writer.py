"""The task that commits what is queued: plan, write, confirm (law 7).

A small batch is planned within its own transaction. A large one is planned in another thread while the batch before
it is written, so that Python's work and the database's go on side by side. One batch is written and one is planned at
a time.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.write_queue import Batch, WriteQueue
from marketplace_sync.mirror.apply import BatchResult
from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.mirror.isolate import PlannedBatch, apply_each, apply_planned_batch, plan_ahead
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.plan import BatchPlan

# A batch that would take longer is made smaller. (Skills of 2 KB with 50,000 different words take PostgreSQL 5 s for
# 16 MiB; a tenth of that is usual.)
MAX_BATCH_SECONDS = 2.0
# The next batch is at least this share of the largest one, however slow the database was: it may have been unreachable.
# A batch below half of this share does not change the size: its time does not show how long the largest would take.
_LEAST_SHARE = 0.1
# A smaller batch is planned and written by one call in the writer's thread: a separate call for the plan would take
# longer than it saves.
AHEAD_FROM = 200


@dataclass(frozen=True, slots=True)
class Committed:
    """The stream messages of one batch, after its commit. `effects` has one effect per item."""

    items: Sequence[Item]
    effects: Sequence[Effect]
    result: BatchResult


@dataclass(frozen=True, slots=True)
class _Writing:
    """A batch that the writer's thread has. `task` returns whether it was written as planned."""

    items: int
    plan: BatchPlan | None
    task: asyncio.Task[bool]


class Writer:
    """Commit whatever is queued, immediately and in order; while one batch is written the next one gathers.

    In the event loop, `committed` is called after each batch with stream messages, and `written` after each batch,
    with its items, their effects and the seconds that it took; `hint` after each commit, with the newest feed number.
    """

    def __init__(
        self,
        queue: WriteQueue,
        database: Database,
        lease: Lease,
        *,
        committed: Callable[[Committed], None],
        hint: Callable[[int], None] = lambda _: None,
        written: Callable[[Sequence[Item], Sequence[Effect], float], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._database = database
        self._lease = lease
        self._committed = committed
        self._hint = hint
        self._written = written
        self._clock = clock
        self._share = 0.5  # of the largest batch: as much as was last written within `MAX_BATCH_SECONDS`

    async def run(self) -> None:
        """Commit until the queue is closed and empty. Raises what the database or the lease raised."""
        while await self._queue.until_filled():
            if self._queue.has_plannable(AHEAD_FROM):
                await self._write_large_batches()
            else:
                await self._write_small_batch(self._queue.take(self._share))

    async def _write_small_batch(self, batch: Batch) -> None:
        began = self._clock()
        result = await self._database.write(apply_each, batch.items, self._lease)
        self._confirm(batch, result, self._clock() - began)

    async def _write_large_batches(self) -> None:
        """Plan each batch while the one before it is written, as long as enough waits."""
        writing: _Writing | None = None
        try:
            while (batch := await self._next_large_batch(writing)) is not None:
                writing = await self._plan_and_write(batch, writing)
            if writing is not None:
                await writing.task
        finally:
            if writing is not None:
                writing.task.cancel()
                await asyncio.gather(writing.task, return_exceptions=True)

    async def _next_large_batch(self, writing: _Writing | None) -> Batch | None:
        """Wait for a batch that is worth planning while another is written.

        Return `None` if the batch being written is committed first, or has no plan to build on. The new batch must have
        at least half as many items, or batches would become smaller and smaller.
        """
        least = AHEAD_FROM
        if writing is not None:
            if writing.plan is None:
                return None
            least = max(least, writing.items // 2)
            growing = asyncio.ensure_future(self._queue.until_plannable(least))
            try:
                await asyncio.wait({writing.task, growing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                growing.cancel()
            if writing.task.done():
                return None
        return self._queue.take(self._share) if self._queue.has_plannable(least) else None

    async def _plan_and_write(self, batch: Batch, before: _Writing | None) -> _Writing | None:
        """Plan a batch on the one before it, wait until that is committed, and begin to write this one.

        Return `None` for a batch that changes nothing, as most pages of a full sync: it takes no transaction. The next
        batch that writes finds out whether the lease is still ours, and each full sync ends with one.
        """
        began = self._clock()
        plan = await self._database.plan(plan_ahead, batch.items, before.plan if before is not None else None)
        if before is not None and not await before.task:
            plan = await self._database.plan(plan_ahead, batch.items, None)
        if plan is not None and plan.writes_nothing:
            self._confirm(batch, BatchResult.of(plan, None), self._clock() - began)
            return None
        task = asyncio.create_task(self._write(batch, plan), name="writing")
        return _Writing(len(batch.items), plan, task)

    async def _write(self, batch: Batch, plan: BatchPlan | None) -> bool:
        began = self._clock()
        planned = PlannedBatch(batch.items, plan)
        result = await self._database.write(apply_planned_batch, planned, self._lease)
        self._confirm(batch, result, self._clock() - began)
        return planned.as_planned

    def _confirm(self, batch: Batch, result: BatchResult, seconds: float) -> None:
        """Report a committed batch to all who wait for it."""
        if result.feed_seq is not None:
            self._adjust_share(batch.fill, seconds)
            self._hint(result.feed_seq)
        self._written(batch.items, result.effects, seconds)
        self._queue.confirm(batch, result)
        if streamed := _streamed(batch, result):
            self._committed(streamed)

    def _adjust_share(self, fill: float, seconds: float) -> None:
        if fill >= _LEAST_SHARE / 2:
            self._share = min(1.0, max(_LEAST_SHARE, fill * MAX_BATCH_SECONDS / max(seconds, 0.001)))


def _streamed(batch: Batch, result: BatchResult) -> Committed | None:
    """Return the batch's stream messages, or `None` where it has none."""
    if not batch.submissions:
        return Committed(batch.items, result.effects, result)
    indexes = batch.stream_indexes()
    if not indexes:
        return None
    return Committed([batch.items[i] for i in indexes], [result.effects[i] for i in indexes], result)
