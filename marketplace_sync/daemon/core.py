"""The daemon's tasks, each with its owner, and how they begin and end (laws 9, 10, 13)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog
from structlog.contextvars import bind_contextvars

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.announcer import FeedAnnouncer
from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.command_desk import CommandDesk
from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.fetches import Fetcher
from marketplace_sync.daemon.figures import Figures
from marketplace_sync.daemon.full_sync import SyncRunner
from marketplace_sync.daemon.intake import Intake
from marketplace_sync.daemon.metrics import Metrics
from marketplace_sync.daemon.publisher import Publisher
from marketplace_sync.daemon.replay import Replayer
from marketplace_sync.daemon.reporter import Reporter
from marketplace_sync.daemon.stream_driver import StreamDriver
from marketplace_sync.daemon.sync_loop import SyncLoop
from marketplace_sync.daemon.token_watch import watch_token
from marketplace_sync.daemon.write_queue import WriteQueue
from marketplace_sync.daemon.writer import Committed, Writer
from marketplace_sync.engine.connection_state import ConnectionState, Mode
from marketplace_sync.engine.rates import TokenBucket
from marketplace_sync.engine.schedule import Schedule
from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.mirror.commands import end_open_commands
from marketplace_sync.mirror.lease import RENEW_SECONDS, Lease
from marketplace_sync.mirror.retention import (
    forget_changes,
    forget_commands,
    forget_dead_letters,
    forget_minutes,
    forget_runs,
    forget_tombstones,
)
from marketplace_sync.mirror.runs import interrupt_open_runs
from marketplace_sync.mirror.state import Remembered, close_state, remembered
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)

# Law 13: what is not committed by then is said, and the exit is not 0.
DRAIN_SECONDS = 4.0
# Of a clean stop, what its listeners may still take; the drain and this stay within the 5 s of a stop.
ANNOUNCE_SECONDS = 0.4
_PRUNE_EVERY = 60.0


class NotDrainedError(Exception):
    """The stop's deadline passed. `left`: items received and not applied."""

    def __init__(self, left: int) -> None:
        super().__init__(f"stopped with {left} received changes not applied; the next pass brings them")
        self.left = left


def wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Session:
    """The right to write and what it takes: a lease that is renewed, and a writer that runs."""

    database: Database
    lease: Lease
    arrivals: Arrivals
    queue: WriteQueue
    announcer: FeedAnnouncer
    before: Remembered
    writing: asyncio.Task[None]

    async def drain(self, within: float) -> None:
        """Take nothing more and wait until all is committed. Raises `NotDrainedError` after `within` seconds."""
        self.queue.close()
        _, late = await asyncio.wait([self.writing], timeout=max(within, 0.0))
        if late:
            raise NotDrainedError(self.queue.waiting)


@asynccontextmanager
async def writing_session(
    database: Database,
    lease: Lease,
    config: SyncConfig,
    committed: Callable[[Committed], None] = lambda _: None,
    hint: Callable[[int], None] = lambda _: None,
    written: Callable[[Sequence[Item], Sequence[Effect], float], None] = lambda *_: None,
) -> AsyncIterator[Session]:
    """Own the mirror while the body runs; leaving it drains the writer and frees the lease.

    Start-up closes what a dead daemon left open. Raises, in a group, `NotDrainedError`, or whatever ended one of
    its tasks, for then the body is cancelled: there is no half-alive daemon.
    """
    bind_contextvars(epoch=lease.epoch)  # connections are counted from 1 in each
    before = await database.control(remembered, lease)
    await _close_left_open(database, lease)
    announcer = FeedAnnouncer(before.feed_seq)

    def grown(seq: int) -> None:
        announcer.committed(seq)
        hint(seq)

    queue = WriteQueue(config.queue_max_bytes)
    writer = Writer(queue, database, lease, committed=committed, hint=grown, written=written)
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(writer.run(), name="writer")
        renewing = tasks.create_task(_renew(database, lease), name="lease")
        session = Session(database, lease, Arrivals(lease.epoch), queue, announcer, before, writing)
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


class Daemon:
    """Keeps the mirror right until `stop` is set. `stream_wanted`: by the settings and the command line.

    `hint` is called in the event loop after every commit, with the newest feed number; it may neither wait nor raise.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access | None = None,
        *,
        stream_wanted: bool = True,
        hint: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = wall_clock,
    ) -> None:
        self._config = config
        self._access = access or Access(config)
        self._hint = hint
        self._stream_wanted = stream_wanted
        self._clock = clock
        self._wall = wall
        self._intake: Intake | None = None
        self._figures: Figures | None = None
        self._driver: StreamDriver | None = None
        self._metrics = Metrics(clock=clock, wall=wall)

    async def run(self, database: Database, lease: Lease, stop: asyncio.Event) -> None:
        """Own the mirror until `stop` is set. Raises an `ExceptionGroup` when any task of it failed."""
        async with (
            MarketClient(self._config, self._access, answered=self._metrics.answered) as market,
            writing_session(
                database, lease, self._config, self._committed, self._hint, self._metrics.written
            ) as session,
        ):
            await self._work(session, market, stop)

    def _committed(self, batch: Committed) -> None:
        if self._intake is not None and self._figures is not None and self._driver is not None:
            self._intake.committed(batch)
            self._figures.committed(batch)
            self._metrics.committed(batch, self._driver.server_offset)

    async def _work(self, session: Session, market: MarketClient, stop: asyncio.Event) -> None:
        config, database, lease, metrics = self._config, session.database, session.lease, self._metrics
        repairs = _Repairs()
        intake = self._intake = Intake(
            bucket=TokenBucket(config.rate_limit, config.rate_limit),
            arrivals=session.arrivals,
            repairs=repairs,
            totals=session.before.totals,
            clock=self._clock,
            wall=self._wall,
            lost=metrics.lost,
        )
        figures = self._figures = Figures(server_offset=lambda: driver.server_offset, wall=self._wall)
        runner = SyncRunner(
            market, session.queue, database, lease, session.arrivals,
            page_size=config.page_size, max_pages=config.max_pages, stream=intake, clock=self._clock,
            interval=config.sync_interval_seconds, held=session.announcer.held,
        )  # fmt: skip
        schedule = Schedule(poll_interval=config.sync_interval_seconds)
        completeness = Completeness(session.arrivals.next)
        passes = SyncLoop(
            runner,
            schedule,
            intake.announced,
            completeness,
            clock=self._clock,
            changed=lambda: shown(),
            passed=metrics.passed,
        )
        fetcher = Fetcher(market, session.queue, session.arrivals, completeness, passes.loss)
        repairs.passes, repairs.fetcher = passes, fetcher

        def receive(event: Change | Refusal, raw: bytes) -> None:
            intake.receive(event, raw, session.queue)

        def shown() -> None:
            metrics.state(reporter.state())
            reporter.poke()

        def changed(before: ConnectionState, after: ConnectionState) -> None:
            metrics.moved(before, after)
            if after.mode is Mode.OPEN and before.mode is not Mode.OPEN:
                passes.stream_opened()
            elif after.first_attempt_ended and not before.first_attempt_ended:
                passes.no_stream()
            shown()

        driver = self._driver = StreamDriver(
            config, self._access, receive=receive, poll=passes.poll_now, changed=changed,
            clock=self._clock, wall=self._wall, token=lambda refused: metrics.token("stream", refused=refused),
        )  # fmt: skip
        reporter = Reporter(
            database, lease,
            connection=lambda: driver.state,
            caught_up=lambda: passes.caught_up,
            complete=lambda: completeness.complete,
            totals=intake.totals,
            lags=figures.take,
            last_message_at=lambda: intake.last_message_at,
            stream_wanted=lambda: self._stream_wanted,
            told=session.announcer.state,
            clock=self._clock,
            wall=self._wall,
        )  # fmt: skip
        replayer = Replayer(
            market, session.queue, database, lease, session.arrivals,
            max_message_bytes=config.max_message_bytes, wall=self._wall,
        )  # fmt: skip
        desk = CommandDesk(
            database, lease, driver, passes, replayer, stream_wanted=self._stream_wanted, ended=metrics.command_ended
        )
        publisher = Publisher(metrics, database, lease, session.queue, market, config, intake.totals, self._clock)

        async with asyncio.TaskGroup() as tasks:
            streaming = tasks.create_task(driver.run(), name="stream")
            others = [
                tasks.create_task(passes.run(), name="passes"),
                tasks.create_task(fetcher.run(), name="fetches"),
                tasks.create_task(reporter.run(), name="state"),
                tasks.create_task(desk.run(), name="commands"),
                tasks.create_task(figures.run(database, lease), name="figures"),
                tasks.create_task(publisher.run(), name="metrics"),
                tasks.create_task(self._prune(database, lease), name="retention"),
                tasks.create_task(watch_token(self._access.token, driver, passes), name="token"),
            ]
            driver.start(enabled=self._stream_wanted and session.before.enabled)
            await stop.wait()
            deadline = self._clock() + DRAIN_SECONDS
            log.info("stopping", waiting=session.queue.waiting)
            driver.stop()
            for task in others:
                task.cancel()
            await streaming
        await session.drain(deadline - self._clock())
        await reporter.write()

    async def _prune(self, database: Database, lease: Lease) -> None:
        """Forget what is old enough, in small steps."""
        config = self._config
        steps: tuple[Callable[[], int], ...] = (
            partial(forget_tombstones, lease),
            partial(forget_minutes, lease),
            partial(forget_changes, lease, keep_days=config.feed_keep_days, keep_rows=config.feed_keep_rows),
            partial(forget_runs, lease, keep_days=config.runs_keep_days),
            partial(forget_commands, lease, keep_days=config.commands_keep_days),
            partial(
                forget_dead_letters,
                lease,
                keep_days=config.dead_letters_keep_days,
                keep_rows=config.dead_letters_keep_rows,
            ),
        )
        while True:
            forgotten = 0
            for step in steps:
                forgotten += await database.control(step)
            await asyncio.sleep(0 if forgotten else _PRUNE_EVERY)


class _Repairs:
    """Ties the intake to those who mend its losses; they need each other."""

    passes: SyncLoop
    fetcher: Fetcher

    def fetch(self, skill_id: str) -> None:
        self.fetcher.fetch(skill_id)

    def complete(self, skill_id: str) -> None:
        self.fetcher.complete(skill_id)

    def loss(self) -> None:
        self.passes.loss()
