"""The bounded queue in front of the writer (law 7)."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from marketplace_sync.mirror.apply import BatchResult
from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.mirror.plan import can_be_ahead

# One transaction takes no more than this: between two, the lease is renewed, and commands and the state are written.
MAX_BATCH_ITEMS = 8000
MAX_BATCH_BYTES = 16 * 1024 * 1024
# Rows of a request that are queued together. A server may send its whole catalogue as one page; one transaction for
# all of it would be too large.
MAX_SUBMITTED_ITEMS = 1000


class WriterClosedError(Exception):
    """The daemon stops, so the queue accepts nothing more."""


class Submission(msgspec.Struct, frozen=True):
    """Items of one request. They are applied in one batch, and `answer` gets their effects.

    `plannable`: a plan for them may be made before what was received earlier is committed.
    """

    items: tuple[Item, ...]
    answer: "asyncio.Future[list[Effect]]"
    plannable: bool


# A stream message is queued as it is: nobody waits for its effect.
_Queued = Item | Submission


@dataclass(slots=True)
class Batch:
    """The items that one transaction applies. `submissions` have the index of their first item; `size` is in bytes."""

    items: list[Item] = field(default_factory=list)
    submissions: list[tuple[int, Submission]] = field(default_factory=list)
    size: int = 0

    @property
    def fill(self) -> float:
        """Return the batch's size as a share of the largest batch, 0.0 to 1.0."""
        return max(len(self.items) / MAX_BATCH_ITEMS, self.size / MAX_BATCH_BYTES)

    def add(self, queued: _Queued) -> None:
        """Append a stream message or a submission."""
        if isinstance(queued, Submission):
            self.submissions.append((len(self.items), queued))
            self.items.extend(queued.items)
        else:
            self.items.append(queued)
            self.size += queued.size

    def stream_indexes(self) -> list[int]:
        """Return the indexes of the items that no request waits for."""
        indexes: list[int] = []
        start = 0
        for first, submission in self.submissions:
            indexes.extend(range(start, first))
            start = first + len(submission.items)
        indexes.extend(range(start, len(self.items)))
        return indexes


class WriteQueue:
    """Keep what was received, in order, until the writer takes it.

    `max_bytes` bounds the stream messages that wait: past it `offer` refuses, and the caller sheds. Requests bound
    themselves, as each waits for its answer. `fleeting` counts the skills that came and went within one batch since
    the start. One task may wait at a time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue: deque[_Queued] = deque()
        self._items = 0
        self._bytes = 0
        self._taken = 0  # items that the writer has taken and not confirmed
        self._closed = False
        self._filled = asyncio.Event()  # at least one item, or closed
        self._grown = asyncio.Event()  # at least `_wanted` items
        self._wanted = 1
        self.fleeting = 0

    @property
    def waiting(self) -> int:
        """Return the number of items that are received and not committed."""
        return self._items + self._taken

    @property
    def waiting_bytes(self) -> int:
        """Return the bytes of the stream messages that the writer has not taken."""
        return self._bytes

    def offer(self, item: Item) -> bool:
        """Queue one stream message of `item.size` bytes; return `False` when the queue is full or closed."""
        if self._closed or self._bytes + item.size > self._max_bytes:
            return False
        self._bytes += item.size
        self._put(item, 1)
        return True

    async def submit(self, items: Sequence[Item]) -> list[Effect]:
        """Queue the rows of a request, wait until they are committed and return their effects, in order.

        All that was received before is committed then too, even where `items` is empty: a full sync that judges what
        is stored must not miss what still waits. Raises `WriterClosedError` when the daemon stops.
        """
        if self._closed:
            raise WriterClosedError
        answers: list[asyncio.Future[list[Effect]]] = []
        for start in range(0, max(len(items), 1), MAX_SUBMITTED_ITEMS):
            part = tuple(items[start : start + MAX_SUBMITTED_ITEMS])
            answers.append(asyncio.get_running_loop().create_future())
            self._put(Submission(part, answers[-1], can_be_ahead(part)), len(part))
        return [effect for answer in answers for effect in await answer]

    def close(self) -> None:
        """Accept nothing more. What waits is still written."""
        self._closed = True
        self._filled.set()

    async def until_filled(self) -> bool:
        """Wait until something is queued; return `False` once the queue is closed and empty."""
        while not self._queue:
            if self._closed:
                return False
            self._filled.clear()
            await self._filled.wait()
        return True

    async def until_plannable(self, items: int) -> None:
        """Wait until `has_plannable(items)`."""
        while not self.has_plannable(items):
            self._wanted = items
            self._grown.clear()
            await self._grown.wait()

    def has_plannable(self, items: int) -> bool:
        """Return whether at least `items` wait that can be planned before earlier ones are committed."""
        count = 0
        for queued in self._queue:
            if isinstance(queued, Submission):
                if not queued.plannable:
                    break
                count += len(queued.items)
            else:
                count += 1
            if count >= items:
                return True
        return False

    def take(self, share: float) -> Batch:
        """Remove and return the next batch, of at most that `share` of the largest one.

        It has at least one element of the queue. A submission that is not plannable is alone in its batch.
        """
        batch = Batch()
        while self._queue and _fits(self._queue[0], batch, share):
            batch.add(self._queue.popleft())
        self._items -= len(batch.items)
        self._bytes -= batch.size
        self._taken += len(batch.items)
        return batch

    def confirm(self, batch: Batch, result: BatchResult) -> None:
        """Answer the requests of a batch that is committed."""
        self._taken -= len(batch.items)
        self.fleeting += result.fleeting
        for first, submission in batch.submissions:
            if not submission.answer.done():
                submission.answer.set_result(result.effects[first : first + len(submission.items)])

    def _put(self, queued: _Queued, items: int) -> None:
        self._queue.append(queued)
        self._items += items
        if self._items >= self._wanted:
            self._grown.set()
        self._filled.set()


def _fits(queued: _Queued, batch: Batch, share: float) -> bool:
    if not batch.items and not batch.submissions:
        return True
    items, size = (len(queued.items), 0) if isinstance(queued, Submission) else (1, queued.size)
    if len(batch.items) + items > share * MAX_BATCH_ITEMS or batch.size + size > share * MAX_BATCH_BYTES:
        return False
    return _plannable(queued) and (not batch.submissions or _plannable(batch.submissions[0][1]))


def _plannable(queued: _Queued) -> bool:
    return queued.plannable if isinstance(queued, Submission) else True
