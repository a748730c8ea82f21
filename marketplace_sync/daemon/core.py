"""The daemon's parts, the tasks that own them, and how they begin and end (laws 9, 10, 13)."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.clocks import Clocks
from marketplace_sync.daemon.command_desk import CommandDesk
from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.fetches import Fetcher
from marketplace_sync.daemon.figures import Figures
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.intake import Intake
from marketplace_sync.daemon.mailbox import Mailbox
from marketplace_sync.daemon.metrics import Metrics
from marketplace_sync.daemon.observer import DaemonObserver, Observers
from marketplace_sync.daemon.publisher import Publisher
from marketplace_sync.daemon.replay import Replayer
from marketplace_sync.daemon.reporter import Reporter, StateSources
from marketplace_sync.daemon.retention import prune
from marketplace_sync.daemon.session import DRAIN_SECONDS, Session, writing_session
from marketplace_sync.daemon.stream_driver import StreamDriver
from marketplace_sync.daemon.sync_loop import SyncLoop
from marketplace_sync.daemon.token_watch import watch_token
from marketplace_sync.engine.rates import TokenBucket
from marketplace_sync.engine.schedule import Schedule
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)


class _FeedHints(DaemonObserver):
    """Send a hint to the web processes after each commit (law 12)."""

    def __init__(self, hint: Callable[[int], None]) -> None:
        self._hint = hint

    def feed_grown(self, seq: int) -> None:
        self._hint(seq)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a stop treats differently: the stream stops and drains, `others` are cancelled, the reporter writes last."""

    driver: StreamDriver
    reporter: Reporter
    others: dict[str, Callable[[], Coroutine[Any, Any, None]]]  # by the names of their tasks


class Daemon:
    """Keep the mirror in sync. `stream_wanted`: whether the settings and the command line want the stream.

    `hint` is called in the event loop after every commit, with the newest feed number. It may neither wait nor raise.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access | None = None,
        *,
        stream_wanted: bool = True,
        hint: Callable[[int], None] = lambda _: None,
        clocks: Clocks | None = None,
    ) -> None:
        self._config = config
        self._access = access or Access(config)
        self._stream_wanted = stream_wanted
        self._clocks = clocks or Clocks()
        self._metrics = Metrics(self._clocks.monotonic)
        self._hints = _FeedHints(hint)

    async def run(self, database: Database, lease: Lease, stop: asyncio.Event) -> None:
        """Own the mirror until `stop` is set. Raise an `ExceptionGroup` if any task fails."""
        observers = Observers(self._hints)
        async with (
            MarketClient(self._config, self._access, answered=self._metrics.answered) as market,
            writing_session(database, lease, self._config, observers) as session,
        ):
            await self._work(session, self._parts(session, market), stop)

    async def _work(self, session: Session, parts: _Parts, stop: asyncio.Event) -> None:
        """Run the parts until `stop` is set; then commit what was received, and write the last state."""
        clock = self._clocks.monotonic
        async with asyncio.TaskGroup() as tasks:
            streaming = tasks.create_task(parts.driver.run(), name="stream")
            others = [tasks.create_task(run(), name=name) for name, run in parts.others.items()]
            parts.driver.start(enabled=self._stream_wanted and session.before.enabled)
            await stop.wait()
            deadline = clock() + DRAIN_SECONDS
            log.info("stopping", waiting=session.queue.waiting)
            parts.driver.stop()
            for task in others:
                task.cancel()
            await streaming
        await session.drain(deadline - clock())
        await parts.reporter.write()

    def _parts(self, session: Session, market: MarketClient) -> _Parts:
        """Build the parts, each from those before it. What they send back goes to the mailbox or the observers."""
        config, clocks, observers = self._config, self._clocks, session.observers
        completeness = Completeness(session.arrivals.next)
        mailbox = Mailbox(Schedule(poll_interval=config.sync_interval_seconds), completeness, clocks.monotonic)
        intake = Intake(
            bucket=TokenBucket(config.rate_limit, config.rate_limit), arrivals=session.arrivals, repairs=mailbox,
            totals=session.before.totals, clock=clocks.monotonic, wall=clocks.wall, lost=self._metrics.lost,
        )  # fmt: skip
        figures = Figures(observers, clocks.wall)
        runner = SyncRunner(market, session, SyncOptions.of(config), stream=intake, clock=clocks.monotonic)
        syncs = SyncLoop(runner, mailbox, intake.announced, observers, clocks.monotonic)
        receive = partial(intake.receive, queue=session.queue)
        driver = StreamDriver(config, self._access, mailbox, observers, clocks, receive=receive)
        sources = StateSources(driver, mailbox.schedule, completeness, intake, figures)
        reporter = Reporter(session, sources, clocks, stream_wanted=self._stream_wanted)
        replayer = Replayer(market, session, max_message_bytes=config.max_message_bytes, wall=clocks.wall)
        desk = CommandDesk(session, driver, syncs, replayer, stream_wanted=self._stream_wanted)
        publisher = Publisher(self._metrics, session, market, config, intake.totals, clocks.monotonic)
        # The reporter comes last: the state that it reads is what the parts before it made of the event.
        observers.add(intake, figures, syncs, completeness, self._metrics, reporter)
        return _Parts(
            driver,
            reporter,
            {
                "syncs": syncs.run,
                "fetches": Fetcher(market, session, mailbox, completeness).run,
                "state": reporter.run,
                "commands": desk.run,
                "figures": partial(figures.run, session.database, session.lease),
                "metrics": publisher.run,
                "retention": partial(prune, session, config),
                "token": partial(watch_token, self._access.token, driver, syncs),
            },
        )
