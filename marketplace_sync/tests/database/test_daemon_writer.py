"""How large batches become, in which order they are written, and how the database's threads are set up."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.write_queue import MAX_BATCH_ITEMS, WriteQueue
from marketplace_sync.daemon.writer import AHEAD_FROM, MAX_BATCH_SECONDS, Writer
from marketplace_sync.mirror import isolate
from marketplace_sync.mirror.apply import BatchResult, apply_batch, apply_planned
from marketplace_sync.mirror.arrived import Arrived, Effect, Item, RefusedInput
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.mirror.isolate import PlannedBatch
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.mirror.plan import BatchPlan
from marketplace_sync.models import DeadLetter, FeedChange, LeaseRow, Skill, Tombstone
from marketplace_sync.protocol.events import SKILL_EMPTY, CategoryRecord, SkillDeleted, SkillRecord
from marketplace_sync.protocol.refusals import Code, Refusal
from marketplace_sync.protocol.stamps import Stamp

pytestmark = pytest.mark.django_db(transaction=True)


class Slow(Database):
    """A database on which a full batch takes `full_batch` seconds, by a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.full_batch = 0.0
        self.now = 0.0
        self.sizes: list[int] = []

    async def write(self, function: Callable[..., Any], batch: PlannedBatch | Sequence[Item], *more: Any) -> Any:  # type: ignore[override]
        size = len(batch.items if isinstance(batch, PlannedBatch) else batch)
        self.sizes.append(size)
        result = await super().write(function, batch, *more)
        self.now += self.full_batch * size / MAX_BATCH_ITEMS
        return result


async def test_a_batch_is_as_large_as_its_time_allows() -> None:
    database = Slow()
    try:
        lease = await database.control(acquire, "test:1")
        arrivals = itertools.count()

        async def flood() -> None:
            database.sizes.clear()
            queue = WriteQueue(2**26)
            writer = Writer(queue, database, lease, committed=lambda _: None, clock=lambda: database.now)
            for number in range(3 * MAX_BATCH_ITEMS):
                record = SkillRecord(f"s{number % 50}", {"name": f"Skill {number}"}, {}, None)
                assert queue.offer(Arrived(record, next(arrivals), FeedChange.Source.STREAM, size=100))
            queue.close()
            await writer.run()

        database.full_batch = MAX_BATCH_SECONDS / 2
        await flood()
        # The first is careful; the second was taken while the first was being written.
        assert database.sizes == [MAX_BATCH_ITEMS // 2, MAX_BATCH_ITEMS // 2, MAX_BATCH_ITEMS, MAX_BATCH_ITEMS]
        database.full_batch = 4 * MAX_BATCH_SECONDS
        await flood()
        assert set(database.sizes[2:]) == {MAX_BATCH_ITEMS // 4}
        database.full_batch = 1000 * MAX_BATCH_SECONDS
        await flood()
        assert set(database.sizes[2:-1]) == {MAX_BATCH_ITEMS // 10}
        assert await database.control(Skill.objects.count) == 50
    finally:
        await database.close()


class Watched(Database):
    """A database that writes nothing until `let` is set, and lists the sizes of what is planned and written."""

    def __init__(self) -> None:
        super().__init__()
        self.planned: asyncio.Queue[int] = asyncio.Queue()
        self.writing: asyncio.Queue[int] = asyncio.Queue()
        self.let = asyncio.Event()

    async def plan(self, function: Callable[..., Any], items: Sequence[Item], *more: Any) -> Any:  # type: ignore[override]
        self.planned.put_nowait(len(items))
        return await super().plan(function, items, *more)

    async def write(self, function: Callable[..., Any], batch: PlannedBatch, *more: Any) -> Any:  # type: ignore[override]
        self.writing.put_nowait(len(batch.items))
        await self.let.wait()
        return await super().write(function, batch, *more)


async def test_the_next_batch_is_planned_once_half_as_much_waits() -> None:
    database = Watched()
    arrivals = itertools.count()
    try:
        lease = await database.control(acquire, "test:1")
        queue = WriteQueue(2**26)
        writer = Writer(queue, database, lease, committed=lambda _: None)

        def page(name: str, size: int) -> list[Item]:
            records = [SkillRecord(f"{name}{number}", {"name": name}, {}, None) for number in range(size)]
            return [Arrived(record, next(arrivals), FeedChange.Source.LISTING, polled=True) for record in records]

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            pages = [tasks.create_task(queue.submit(page("a", 600)))]
            assert await database.planned.get() == await database.writing.get() == 600
            pages.append(tasks.create_task(queue.submit(page("b", 250))))
            for _ in range(50):  # more turns of the loop than planning would take
                await asyncio.sleep(0)
            assert queue.waiting == 850
            assert database.planned.empty()
            pages.append(tasks.create_task(queue.submit(page("c", 50))))
            assert await database.planned.get() == 300
            await Database.plan(database, int)  # so that is done
            for _ in range(50):
                await asyncio.sleep(0)
            assert database.writing.empty()  # until the first is committed
            assert not any(page.done() for page in pages)
            database.let.set()
            assert [set(await page) for page in pages] == [{Effect.CREATED}] * 3
            assert await database.writing.get() == 300
            queue.close()
    finally:
        await database.close()


async def test_a_batch_planned_on_a_refused_batch_is_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first plan, which was not written, the second page would change nothing."""
    planned = threading.Event()

    def refusing(apply: Callable[..., BatchResult], wait: bool) -> Callable[..., BatchResult]:
        def applied(batch: BatchPlan | Sequence[Item], lease: Lease) -> BatchResult:
            items = batch.items if isinstance(batch, BatchPlan) else batch
            if any(isinstance(item, Arrived) and item.arrival == 1 for item in items):
                assert not wait or planned.wait(30)
                raise DataError("too long for its column")
            return apply(batch, lease)

        return applied

    monkeypatch.setattr(isolate, "apply_planned", refusing(apply_planned, True))
    monkeypatch.setattr(isolate, "apply_batch", refusing(apply_batch, False))

    def page(first: int) -> list[Item]:
        records = [SkillRecord(f"s{number}", {**SKILL_EMPTY, "name": "a name"}, {}, None) for number in range(300)]
        source = FeedChange.Source.LISTING
        return [Arrived(record, number, source, polled=True) for number, record in enumerate(records, first)]

    database = Watched()
    database.let.set()
    try:
        lease = await database.control(acquire, "test:1")
        queue = WriteQueue(2**26)
        writer = Writer(queue, database, lease, committed=lambda _: None)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            pages = [tasks.create_task(queue.submit(page(1)))]
            assert (await database.planned.get(), await database.writing.get()) == (300, 300)
            pages.append(tasks.create_task(queue.submit(page(301))))
            assert await database.planned.get() == 300
            await Database.plan(database, planned.set)  # once that is done
            effects = [await page for page in pages]
            queue.close()
        assert effects[0] == [Effect.REFUSED, *[Effect.CREATED] * 299]
        assert effects[1] == [Effect.CREATED, *[Effect.UNCHANGED] * 299]
        assert await database.control(Skill.objects.count) == 300
    finally:
        await database.close()


@pytest.mark.parametrize("lost", ["before it was written", "after it was committed"])
async def test_a_batch_that_is_tried_again_is_not_overtaken(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is planned on it already, and is right only after it."""
    planned = threading.Event()
    tries = 0

    def once(plan: BatchPlan, lease: Lease) -> BatchResult:
        nonlocal tries
        tries += 1
        if tries == 1:
            assert planned.wait(30)
            if lost == "after it was committed":
                apply_planned(plan, lease)
            raise OperationalError("the connection is gone")
        return apply_planned(plan, lease)

    class Planning(Database):
        async def plan(self, function: Callable[..., Any], items: Sequence[Item], *more: Any) -> Any:  # type: ignore[override]
            plan = await super().plan(function, items, *more)
            if isinstance(items[0], Arrived) and items[0].arrival > 300:
                planned.set()
            return plan

    monkeypatch.setattr(isolate, "apply_planned", once)
    database = Planning()
    try:
        lease = await database.control(acquire, "test:1")
        effects: list[Effect] = []
        queue = WriteQueue(2**26)
        writer = Writer(queue, database, lease, committed=lambda batch: effects.extend(batch.effects))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            for version in range(3):
                for number in range(300):
                    record = SkillRecord(f"s{number}", {"name": "a name", "version": str(version)}, {}, None)
                    arrival = version * 300 + number + 1
                    assert queue.offer(Arrived(record, arrival, FeedChange.Source.STREAM, size=100))
                await Database.plan(database, int)  # the writer took it, and plans it
            queue.close()
        first = Effect.CREATED if lost == "before it was written" else Effect.UNCHANGED
        assert effects == [first] * 300 + [Effect.UPDATED] * 600
        assert database.retries == 1
        stored = await database.control(
            lambda: list(Skill.objects.values_list("version", "arrival").order_by("arrival"))
        )
        assert stored == [("2", 601 + number) for number in range(300)]
        seqs = await database.control(lambda: list(FeedChange.objects.values_list("seq", flat=True)))
        assert seqs == list(range(1, len(seqs) + 1))
    finally:
        await database.close()


async def test_nothing_is_written_after_a_batch_that_lost_the_lease() -> None:
    """The writer ends with the first batch's error, and asyncio reports no other one."""
    database = Watched()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        lease = await database.control(acquire, "test:1")
        queue = WriteQueue(2**26)
        writer = Writer(queue, database, lease, committed=lambda _: None)
        running = asyncio.create_task(writer.run())
        for first in (1, 301):
            for number in range(first, first + 300):
                record = SkillRecord(f"s{number}", {"name": "a name"}, {}, None)
                assert queue.offer(Arrived(record, number, FeedChange.Source.STREAM, size=100))
            assert await database.planned.get() == 300
        assert await database.writing.get() == 300
        await database.control(lambda: LeaseRow.objects.update(epoch=2, holder="other:1"))
        database.let.set()
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(30):
                await running
        del running
        await database.control(int)
        gc.collect()
        assert database.writing.empty()
        assert await database.control(Skill.objects.count) == 0
        assert complaints == []
    finally:
        await database.close()


@pytest.mark.usefixtures("sqlite")
async def test_every_connection_of_the_planner_keeps_few_pages() -> None:
    database = Database()

    def lose() -> None:
        if connection.connection is lost:
            raise OperationalError("the connection is gone")

    def pages() -> int:
        return int(dialect().select("PRAGMA cache_size")[0][0])

    try:
        assert await database.plan(pages) == -512
        assert await database.write(pages) == await database.control(pages) != -512
        lost = await database.plan(lambda: connection.connection)
        await database.plan(lose)
        assert database.retries == 1
        assert await database.plan(pages) == -512
    finally:
        await database.close()


@pytest.mark.usefixtures("sqlite")
async def test_only_large_batches_leave_checkpoints_to_other_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database()
    limits: list[int] = []

    def before_it_writes(plan: BatchPlan, lease: Lease) -> BatchResult:
        limits.append(int(dialect().select("PRAGMA wal_autocheckpoint")[0][0]))
        if len(limits) == 2:
            raise OperationalError("the file is locked")
        return apply_planned(plan, lease)

    monkeypatch.setattr(isolate, "apply_planned", before_it_writes)
    try:
        lease = await database.control(acquire, "test:1")
        for tries in range(2):
            queue = WriteQueue(2**26)
            writer = Writer(queue, database, lease, committed=lambda _: None)
            for number in range(AHEAD_FROM):
                record = SkillRecord(f"s{number}", {"name": f"Skill {tries}"}, {}, None)
                assert queue.offer(Arrived(record, number + tries * AHEAD_FROM, FeedChange.Source.STREAM, size=100))
            queue.close()
            await writer.run()
            assert await database.write(lambda: dialect().select("PRAGMA wal_autocheckpoint")) == [(1000,)]
        assert limits == [8192, 8192]
        assert await database.control(Skill.objects.filter(name="Skill 1").count) == AHEAD_FROM
    finally:
        await database.close()


async def test_a_large_batch_that_changes_nothing_takes_no_transaction() -> None:
    """It waits for no lock, and no feed number is announced for it."""
    database = Slow()
    hints: list[int] = []
    effects: list[Effect] = []
    try:
        lease = await database.control(acquire, "test:1")
        queue = WriteQueue(2**26)
        writer = Writer(
            queue, database, lease, committed=lambda batch: effects.extend(batch.effects), hint=hints.append,
            clock=lambda: database.now,
        )  # fmt: skip
        writing = asyncio.create_task(writer.run())
        rows = [
            SkillRecord(f"s{number}", {**SKILL_EMPTY, "name": "x"}, {}, Stamp("2026-03-01")) for number in range(500)
        ]
        arrivals = itertools.count(1)

        async def listed(*more: Item) -> list[Effect]:
            database.sizes.clear()
            some = [Arrived(row, next(arrivals), FeedChange.Source.LISTING, polled=True) for row in rows]
            return await queue.submit([*some, *more])

        assert set(await listed()) == {Effect.CREATED}
        assert database.sizes == [500]
        assert set(await listed()) == {Effect.UNCHANGED}
        assert database.sizes == []
        gone = Arrived(SkillDeleted("never heard of", None), next(arrivals), FeedChange.Source.STREAM)
        assert (await listed(gone))[-1] is Effect.UNCHANGED
        assert database.sizes == [501]
        assert await database.control(Tombstone.objects.count) == 1
        made = Arrived(CategoryRecord("new", {}, None), next(arrivals), FeedChange.Source.LISTING)
        assert (await listed(made))[-1] is Effect.CREATED
        assert database.sizes == [501]
        refused = RefusedInput.of(Refusal(Code.MISSING, "name", "required"), b"{}", DeadLetter.Source.LISTING)
        assert (await listed(refused))[-1] is Effect.REFUSED
        assert database.sizes == [501]
        assert await database.control(DeadLetter.objects.count) == 1
        assert len(hints) == 4
        assert queue.waiting == 0
        queue.close()
        await writing
    finally:
        await database.close()
