"""The right to write the mirror: a lease that is renewed, and a writer that runs (laws 9, 10 and 13)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from structlog.contextvars import bind_contextvars

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.announcer import FeedAnnouncer
from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.observer import Observers
from marketplace_sync.daemon.write_queue import WriteQueue
from marketplace_sync.daemon.writer import Writer
from marketplace_sync.mirror.commands import end_open_commands
from marketplace_sync.mirror.lease import RENEW_SECONDS, Lease
from marketplace_sync.mirror.runs import interrupt_open_runs
from marketplace_sync.mirror.state import Remembered, close_state, remembered

# Law 13: what is not committed by then is reported, and the exit status is not 0.
DRAIN_SECONDS = 4.0
# What listeners to the signals may still take at a clean stop; with the drain it stays within the 5 s of a stop.
ANNOUNCE_SECONDS = 0.4


class NotDrainedError(Exception):
    """The stop's deadline passed. `left`: items received and not applied."""

    def __init__(self, left: int) -> None:
        super().__init__(f"stopped with {left} received changes not applied; the next full sync brings them")
        self.left = left


@dataclass(frozen=True, slots=True)
class Session:
    """What the parts of the daemon share while it owns the lease: database, write queue, observers."""

    database: Database
    lease: Lease
    arrivals: Arrivals
    queue: WriteQueue
    observers: Observers
    announcer: FeedAnnouncer
    before: Remembered  # what the status row had when the session began
    writing: asyncio.Task[None]

    async def drain(self, within: float) -> None:
        """Accept nothing more and wait until all is committed. Raise `NotDrainedError` after `within` seconds."""
        self.queue.close()
        _, late = await asyncio.wait([self.writing], timeout=max(within, 0.0))
        if late:
            raise NotDrainedError(self.queue.waiting)


@asynccontextmanager
async def writing_session(
    database: Database, lease: Lease, config: SyncConfig, observers: Observers | None = None
) -> AsyncIterator[Session]:
    """Own the mirror while the body runs; leaving it drains the writer and releases the lease.

    The start closes what a dead daemon left open. Raise, in a group, `NotDrainedError` or what ended one of the tasks:
    then the body is cancelled, so that no half of a daemon stays alive.
    """
    bind_contextvars(epoch=lease.epoch)  # each epoch counts its connections from 1
    before = await database.control(remembered, lease)
    await _close_left_open(database, lease)
    observers, announcer = observers or Observers(), FeedAnnouncer(before.feed_seq)
    observers.add(announcer)
    queue = WriteQueue(config.queue_max_bytes)
    writer = Writer(
        queue, database, lease,
        committed=observers.committed, hint=observers.feed_grown, written=observers.written,
    )  # fmt: skip
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(writer.run(), name="writer")
        renewing = tasks.create_task(_renew(database, lease), name="lease")
        session = Session(database, lease, Arrivals(lease.epoch), queue, observers, announcer, before, writing)
        yield session
        await session.drain(DRAIN_SECONDS)
        renewing.cancel()
    await _close_left_open(database, lease)
    await database.control(lease.release)
    await asyncio.to_thread(announcer.close, ANNOUNCE_SECONDS)


async def _close_left_open(database: Database, lease: Lease) -> None:
    for close in (close_state, interrupt_open_runs, end_open_commands):
        await database.control(close, lease)


async def _renew(database: Database, lease: Lease) -> None:
    while True:
        await database.keep(lease.renew)
        await asyncio.sleep(RENEW_SECONDS)
