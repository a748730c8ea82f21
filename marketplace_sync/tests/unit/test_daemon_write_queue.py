"""The queue in front of the writer: its bounds, its batches and its answers."""

import asyncio
from collections.abc import Sequence

import pytest

from marketplace_sync.daemon.write_queue import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ITEMS,
    MAX_SUBMITTED_ITEMS,
    Batch,
    WriteQueue,
    WriterClosedError,
)
from marketplace_sync.mirror.apply import BatchResult
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Event
from marketplace_sync.models import FeedChange
from marketplace_sync.protocol.events import SkillDeleted


def item(number: int, *, size: int = 0, event: Event | None = None) -> Arrived:
    return Arrived(event or SkillDeleted(f"s{number}", None), number, FeedChange.Source.STREAM, size=size)


def absent(number: int) -> Arrived:
    return item(number, event=CategoryAbsent("c"))


def arrivals(batch: Batch) -> list[int]:
    return [item.arrival for item in batch.items if isinstance(item, Arrived)]


def result(effects: Sequence[Effect], fleeting: int = 0) -> BatchResult:
    return BatchResult(list(effects), 1, fleeting=fleeting)


async def submitted(queue: WriteQueue, items: Sequence[Arrived]) -> asyncio.Task[list[Effect]]:
    task = asyncio.create_task(queue.submit(items))
    await asyncio.sleep(0)
    return task


def test_a_message_over_the_byte_limit_is_refused() -> None:
    queue = WriteQueue(max_bytes=100)
    assert queue.offer(item(1, size=60))
    assert not queue.offer(item(2, size=41))
    assert queue.offer(item(3, size=40))
    assert (queue.waiting, queue.waiting_bytes) == (2, 100)


def test_taken_items_wait_until_they_are_confirmed_but_free_their_bytes() -> None:
    queue = WriteQueue(max_bytes=100)
    queue.offer(item(1, size=100))
    batch = queue.take(1.0)
    assert (queue.waiting, queue.waiting_bytes) == (1, 0)
    assert queue.offer(item(2, size=100))
    queue.confirm(batch, result([Effect.REMOVED], fleeting=1))
    assert (queue.waiting, queue.fleeting) == (1, 1)


def test_a_batch_has_at_most_its_share_of_the_largest_one() -> None:
    queue = WriteQueue(max_bytes=2 * MAX_BATCH_BYTES)
    for number in range(MAX_BATCH_ITEMS):
        queue.offer(item(number))
    assert len(queue.take(0.25).items) == MAX_BATCH_ITEMS // 4
    assert len(queue.take(1.0).items) == MAX_BATCH_ITEMS * 3 // 4
    for number in range(4):
        queue.offer(item(number, size=MAX_BATCH_BYTES // 2))
    assert arrivals(queue.take(1.0)) == [0, 1]
    assert arrivals(queue.take(0.1)) == [2]  # never less than one


async def test_each_request_gets_the_effects_of_its_own_items() -> None:
    queue = WriteQueue(max_bytes=100)
    queue.offer(item(1))
    first = await submitted(queue, [item(2), item(3)])
    queue.offer(item(4))
    second = await submitted(queue, [])
    batch = queue.take(1.0)
    assert arrivals(batch) == [1, 2, 3, 4]
    assert batch.stream_indexes() == [0, 3]
    queue.confirm(batch, result([Effect.CREATED, Effect.UPDATED, Effect.STALE, Effect.REMOVED]))
    assert await first == [Effect.UPDATED, Effect.STALE]
    assert await second == []


async def test_a_large_request_is_queued_in_parts_and_answered_as_one() -> None:
    queue = WriteQueue(max_bytes=100)
    request = await submitted(queue, [item(number) for number in range(MAX_SUBMITTED_ITEMS + 1)])
    batches = [queue.take(MAX_SUBMITTED_ITEMS / MAX_BATCH_ITEMS) for _ in range(2)]
    assert [len(batch.items) for batch in batches] == [MAX_SUBMITTED_ITEMS, 1]
    for batch, effect in zip(batches, (Effect.CREATED, Effect.STALE), strict=True):
        queue.confirm(batch, result([effect] * len(batch.items)))
    assert await request == [*[Effect.CREATED] * MAX_SUBMITTED_ITEMS, Effect.STALE]


async def test_an_absent_category_is_alone_in_its_batch_and_not_plannable() -> None:
    queue = WriteQueue(max_bytes=100)
    queue.offer(item(1))
    request = await submitted(queue, [absent(2)])
    queue.offer(item(3))
    assert queue.has_plannable(1)
    assert not queue.has_plannable(2)  # nothing behind it counts
    assert [arrivals(queue.take(1.0)) for _ in range(3)] == [[1], [2], [3]]
    request.cancel()


async def test_waiting_ends_when_enough_is_queued() -> None:
    queue = WriteQueue(max_bytes=100)
    waiting = asyncio.create_task(queue.until_plannable(2))
    queue.offer(item(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.offer(item(2))
    async with asyncio.timeout(5):
        await waiting


async def test_a_closed_queue_accepts_nothing_and_is_drained() -> None:
    queue = WriteQueue(max_bytes=100)
    queue.offer(item(1))
    queue.close()
    assert not queue.offer(item(2))
    with pytest.raises(WriterClosedError):
        await queue.submit([item(3)])
    assert await queue.until_filled()
    queue.take(1.0)
    assert not await queue.until_filled()
