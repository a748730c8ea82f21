"""How large a batch becomes, and what the threads of the database are told."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import OperationalError, connection

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.writer import MAX_BATCH_ITEMS, MAX_BATCH_SECONDS, Writer
from marketplace_sync.mirror.arrived import Arrived, Item
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.plan import Plan
from marketplace_sync.mirror.sql import select
from marketplace_sync.models import FeedChange, Skill
from marketplace_sync.protocol.events import SkillRecord

pytestmark = pytest.mark.django_db(transaction=True)


class Slow(Database):
    """A database on which a full batch takes `full_batch` seconds, by a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.full_batch = 0.0
        self.now = 0.0
        self.sizes: list[int] = []

    async def write(self, function: Callable[..., Any], batch: Plan | Sequence[Item], *more: Any) -> Any:  # type: ignore[override]
        size = len(batch.items if isinstance(batch, Plan) else batch)
        self.sizes.append(size)
        self.now += self.full_batch * size / MAX_BATCH_ITEMS
        return await super().write(function, batch, *more)


async def test_a_batch_is_as_large_as_its_time_allows() -> None:
    database = Slow()
    try:
        lease = await database.control(acquire, "test:1")

        async def flood() -> None:
            database.sizes.clear()
            writer = Writer(
                database, lease, queue_max_bytes=2**26, committed=lambda _: None, clock=lambda: database.now
            )
            for number in range(3 * MAX_BATCH_ITEMS):
                record = SkillRecord(f"s{number % 50}", {"name": f"Skill {number}"}, {}, None)
                assert writer.offer(Arrived(record, number, FeedChange.Source.STREAM), 100)
            writer.close()
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


@pytest.mark.usefixtures("sqlite")
async def test_what_each_connection_is_told_also_a_new_one() -> None:
    database = Database()

    def pages() -> int:
        return int(select("PRAGMA wal_autocheckpoint")[0][0])

    def lose() -> int:
        before = pages()
        if connection.connection is not lost:
            return before
        raise OperationalError("the connection is gone")

    try:
        assert await database.write(pages) == 8192
        assert await database.plan(pages) == await database.control(pages) == 1000
        assert await database.plan(lambda: select("PRAGMA cache_size")) == [(-512,)]
        lost = await database.write(lambda: connection.connection)
        assert await database.write(lose) == 8192
        assert database.retries == 1
    finally:
        await database.close()
