"""The queue in front of the mirror, and the task that commits what has queued (law 7)."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from marketplace_sync.daemon.database import Database
from marketplace_sync.mirror.apply import BatchResult
from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.mirror.isolate import OutOfTurnError, Turn, apply_ahead, apply_each, plan_ahead
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.plan import BatchPlan, can_be_ahead
from marketplace_sync.mirror.sql import others_queue

# One transaction takes no more than this, and less where so much would take longer than that: the lease is renewed,
# and commands and the state are written, between two. (Skills of 2 KB with 50,000 different words take PostgreSQL 5 s
# for 16 MiB, a tenth of it is usual.)
MAX_BATCH_ITEMS = 8000
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_BATCH_SECONDS = 2.0
# However slow the database was (it may have been away), the next is at least this part of the largest; one of a batch
# of less than half of that says nothing of how long the largest would take.
_LEAST_SHARE = 0.1
# Rows of a request that are queued as one: their bytes are not known, and nothing cuts them any smaller.
SUBMITTED_AS_ONE = 1000
# A batch of fewer takes one hop and reads in its own transaction: to plan it apart would take longer than it saves.
AHEAD_FROM = 200


class WriterClosedError(Exception):
    """Nothing more is taken: the daemon stops."""


class _Entry(msgspec.Struct, frozen=True, gc=False):
    items: tuple[Item, ...]
    size: int
    answer: "asyncio.Future[list[Effect]] | None" = None  # None: nobody waits, it came from the stream
    ahead: bool = True  # may be planned before what was received earlier is committed


@dataclass(slots=True)
class _Batch:
    """What one transaction takes."""

    entries: list[_Entry] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    size: int = 0

    @property
    def fill(self) -> float:
        """As a part of the largest that there may be."""
        return max(len(self.items) / MAX_BATCH_ITEMS, self.size / MAX_BATCH_BYTES)


@dataclass(slots=True)
class _Writing:
    """A batch that is with the writer's thread."""

    batch: _Batch
    turn: Turn
    task: asyncio.Task[BatchResult]
    begun: float  # when it was handed over, or, if later, when the one before it had ended
    ended: float = 0.0


@dataclass(frozen=True, slots=True)
class Committed:
    """One batch of stream messages after its commit. `effects` belong to `items`, one each."""

    items: Sequence[Item]
    effects: Sequence[Effect]
    result: BatchResult


class Writer:
    """Commits whatever has queued, at once and in order; while one batch is written the next one gathers.

    `queue_max_bytes` bounds what waits: beyond it `offer` says no, and the caller sheds.
    In the event loop, `committed` is called after each batch that held stream messages, and `written` after any, with
    the batch, its effects and the seconds that it took; `hint` after each commit, with the newest feed number.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        queue_max_bytes: int,
        committed: Callable[[Committed], None],
        hint: Callable[[int], None] = lambda _: None,
        written: Callable[[Sequence[Item], Sequence[Effect], float], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._lease = lease
        self._queue_max_bytes = queue_max_bytes
        self._committed = committed
        self._hint = hint
        self._written = written
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._queued = 0  # items
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._grown = asyncio.Event()  # `_least` wait: enough to be planned beside what is being written
        self._least = AHEAD_FROM
        self._closed = False
        self._writing = 0
        self.fleeting = 0  # skills that came and went within a batch, since the start
        self._share = 0.5  # of the largest batch: what was written last would fit into its time

    @property
    def waiting(self) -> int:
        """Items received and not committed yet."""
        return self._queued + self._writing

    @property
    def waiting_bytes(self) -> int:
        """Size of the stream items that wait; what a request brought has none."""
        return self._queued_bytes

    def offer(self, item: Item, size: int) -> bool:
        """Queue one stream item of `size` bytes; `False` when the queue is full or closed."""
        if self._closed or self._queued_bytes + size > self._queue_max_bytes:
            return False
        self._put(_Entry((item,), size))
        return True

    async def submit(self, items: Sequence[Item]) -> list[Effect]:
        """Queue the rows of a request and wait until they are committed; what became of each, in order.

        All that was received before is committed too, also when there are no rows: a pass that judges what the
        mirror has must not overlook what still queues.

        Raises `WriterClosedError` when the daemon stops.
        """
        if self._closed:
            raise WriterClosedError
        # A server may send its whole catalogue as one page: in one transaction that would be too many.
        answers: list[asyncio.Future[list[Effect]]] = []
        for start in range(0, max(len(items), 1), SUBMITTED_AS_ONE):
            some = tuple(items[start : start + SUBMITTED_AS_ONE])
            answers.append(asyncio.get_running_loop().create_future())
            self._put(_Entry(some, 0, answers[-1], can_be_ahead(some)))
        return [effect for answer in answers for effect in await answer]

    def close(self) -> None:
        """Take nothing more; `run` returns once all is committed."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Commit until closed and drained. Raises what the database or the lease raised: no half-alive daemon."""
        while True:
            if not self._queue:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            elif self._much_waits():
                await self._run_ahead(self._take())
            else:
                batch = self._take()
                begun = self._clock()
                result = await self._database.write(apply_each, batch.items, self._lease)
                self._ended(batch, result, self._clock() - begun)

    async def _run_ahead(self, batch: "_Batch") -> None:
        """Commit this batch and, as long as much waits, the next: each is planned while the one before is written.

        Where others queue for the database it is with the writer's thread once it is planned, which goes on to it
        without waiting for the loop. One that would write nothing, as the pages of a pass over what has not changed,
        takes no transaction: whether the lease is still held is for the next that writes to find out, and a pass ends
        with one.
        """
        under_way: list[_Writing] = []  # with the thread: one, or two
        following: _Batch | None = batch
        plan: BatchPlan | None = None
        try:
            while following is not None:
                batch, begun = following, self._clock()
                plan = await self._database.plan(plan_ahead, batch.items, plan if under_way else None)
                in_turn = others_queue() and not (plan is not None and plan.writes_nothing)
                if under_way and not in_turn and not await self._end(under_way):
                    plan = await self._database.plan(plan_ahead, batch.items, None)
                if plan is not None and plan.writes_nothing:
                    self._ended(batch, BatchResult.of(plan, None), self._clock() - begun)
                    following = self._take() if self._much_waits() else None
                    continue
                self._begin(batch, plan, under_way)
                as_planned = plan is not None and (len(under_way) == 1 or await self._end(under_way))
                following = await self._gathered(under_way[-1]) if as_planned else None
            while under_way:
                await self._end(under_way)
        finally:
            for writing in under_way:
                writing.task.cancel()
            await asyncio.gather(*(writing.task for writing in under_way), return_exceptions=True)

    def _begin(self, batch: "_Batch", plan: BatchPlan | None, under_way: "list[_Writing]") -> None:
        """Hand it to the writer's thread, after the one that is `under_way`, if any, and add it there."""
        before = under_way[-1] if under_way else None
        turn, first = (Turn(before.turn), before.task) if before is not None else (Turn(), None)

        async def write() -> BatchResult:
            try:
                result = await self._database.write(apply_ahead, batch.items, plan, self._lease, turn)
            except OutOfTurnError:
                assert first is not None
                await asyncio.wait([first])
                result = await self._database.write(apply_ahead, batch.items, plan, self._lease, turn)
            writing.ended = self._clock()
            return result

        writing = _Writing(batch, turn, asyncio.create_task(write(), name="writing"), self._clock())
        under_way.append(writing)

    async def _end(self, under_way: "list[_Writing]") -> bool:
        """Wait until the first of them is committed, and say whether as planned."""
        first = under_way[0]
        result = await first.task
        del under_way[0]
        if under_way:
            under_way[0].begun = max(under_way[0].begun, first.ended)
        self._ended(first.batch, result, first.ended - first.begun)
        return first.turn.as_planned is True

    async def _gathered(self, writing: "_Writing") -> "_Batch | None":
        """What is to be planned while this is being written; `None`: it was written before as much waited.

        At least half as much, or batches would become ever smaller. A page of a listing may come a moment later.
        """
        self._least = max(AHEAD_FROM, len(writing.batch.items) // 2)
        while not writing.task.done():
            if self._much_waits(self._least):
                return self._take()
            self._grown.clear()
            grown = asyncio.ensure_future(self._grown.wait())
            try:
                await asyncio.wait({writing.task, grown}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                grown.cancel()
        return None

    def _much_waits(self, least: int = AHEAD_FROM) -> bool:
        """Is what would be taken next large enough to be planned apart, and may it be?"""
        count = 0
        for entry in self._queue:
            count += len(entry.items) if entry.ahead else 0
            if count >= least or not entry.ahead:
                break
        return count >= least

    def _put(self, entry: "_Entry") -> None:
        self._queue.append(entry)
        self._queued_bytes += entry.size
        self._queued += len(entry.items)
        if self._queued >= self._least:
            self._grown.set()
        self._wake.set()

    def _take(self) -> "_Batch":
        batch = _Batch()
        most_items, most_bytes = self._share * MAX_BATCH_ITEMS, self._share * MAX_BATCH_BYTES
        while self._queue:
            entry = self._queue[0]
            if batch.entries and (
                len(batch.items) + len(entry.items) > most_items
                or batch.size + entry.size > most_bytes
                or not (entry.ahead and batch.entries[0].ahead)
            ):
                break
            batch.entries.append(self._queue.popleft())
            batch.items.extend(entry.items)
            batch.size += entry.size
        self._queued_bytes -= batch.size
        self._queued -= len(batch.items)
        self._writing += len(batch.items)
        return batch

    def _ended(self, batch: "_Batch", result: BatchResult, seconds: float) -> None:
        self._writing -= len(batch.items)
        self.fleeting += result.fleeting
        if result.feed_seq is not None:
            if batch.fill >= _LEAST_SHARE / 2:
                self._share = min(1.0, max(_LEAST_SHARE, batch.fill * MAX_BATCH_SECONDS / max(seconds, 0.001)))
            self._hint(result.feed_seq)
        self._written(batch.items, result.effects, seconds)
        self._answer(batch.entries, batch.items, result)

    def _answer(self, entries: Sequence[_Entry], items: Sequence[Item], result: BatchResult) -> None:
        if all(entry.answer is None for entry in entries):
            self._committed(Committed(items, result.effects, result))
            return
        streamed: list[int] = []
        start = 0
        for entry in entries:
            end = start + len(entry.items)
            if entry.answer is None:
                streamed.extend(range(start, end))
            elif not entry.answer.done():
                entry.answer.set_result(result.effects[start:end])
            start = end
        if streamed:
            self._committed(Committed([items[i] for i in streamed], [result.effects[i] for i in streamed], result))
