"""Run full syncs: read the listing into the mirror, settle what is absent from it, and record how the run ended.

`daemon.listing_reader` reads the pages; `daemon.absence` decides what is removed, and when.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog
from structlog.contextvars import bound_contextvars

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.absence import Absences, Settled
from marketplace_sync.daemon.listing_reader import ListingReader, NoStream, StreamReports
from marketplace_sync.daemon.session import Session
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.sync_writes import SyncWrites
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.runs import Progress, begin_run, end_run
from marketplace_sync.models import SyncRun
from marketplace_sync.upstream.errors import NothingReadableError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """The options of full syncs.

    A `repair` takes the marketplace's content whatever the times are, and removes without approval, for a person asked
    for it. `by_row`: every run compares the stored rows themselves, not only the run that is due to (law 16); a repair
    does so too.
    """

    page_size: int
    max_pages: int
    interval: float = 0.0  # seconds between two runs
    repair: bool = False
    by_row: bool = False

    @classmethod
    def of(cls, config: SyncConfig) -> "SyncOptions":
        """Return the options of the daemon's regular full syncs."""
        return cls(page_size=config.page_size, max_pages=config.max_pages, interval=config.sync_interval_seconds)


class SyncRunner:
    """Run full syncs one after the other."""

    def __init__(
        self,
        market: MarketClient,
        session: Session,
        options: SyncOptions,
        *,
        stream: StreamReports | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._market = market
        self._session = session
        self._options = options
        self._stream = stream or NoStream()
        self._clock = clock
        self._absences = Absences(
            market, session.database, session.arrivals, self._stream.announced, repair=options.repair
        )

    async def run(self, reason: str, *, approved: frozenset[str] = frozenset()) -> SyncReport:
        """Run one full sync and return its report. `approved`: skills whose removal a person approved.

        If the marketplace cannot be read, the run ends as `failed`. Database errors and a lost lease are raised.
        """
        options = self._options
        run = await self._session.database.control(
            begin_run, self._session.lease, reason,
            by_row=options.by_row or options.repair, interval=timedelta(seconds=options.interval),
        )  # fmt: skip
        started = self._clock()
        with bound_contextvars(run=run.id):
            log.info("sync_began", reason=reason, by_row=run.by_row)
            writes = SyncWrites(self._session, run, repair=options.repair)
            plan = PagePlan(options.page_size, options.max_pages)
            reader = ListingReader(self._market, writes, plan, self._stream, self._clock)
            try:
                named = await reader.read()
                if unreadable := reader.nothing_readable():
                    # Another try right after this one would be no better.
                    raise NothingReadableError(unreadable, options.interval)
                settled = await self._absences.settle(named, writes, approved=approved)
            except UpstreamError as error:
                return await self._failed(reader, writes, error)
            return await self._ended(reader, writes, settled, self._clock() - started)

    async def _failed(self, reader: ListingReader, writes: SyncWrites, error: UpstreamError) -> SyncReport:
        run_id, state = writes.run.id, SyncRun.State.FAILED
        await self._session.database.control(
            end_run, self._session.lease, run_id, state, writes.progress, error=error.reason
        )
        log.warning("sync_failed", reason=error.reason)
        reader.log_refused()
        return SyncReport(
            run_id, state, writes.progress, reader.begun,
            error=error.reason, retry_after=error.retry_after, refused_token=error.refused_token,
        )  # fmt: skip

    async def _ended(self, reader: ListingReader, writes: SyncWrites, settled: Settled, seconds: float) -> SyncReport:
        run, progress = writes.run, writes.progress
        ended = SyncRun.State.DEGRADED if progress.refused else SyncRun.State.DONE
        held_count = await self._session.database.control(
            end_run, self._session.lease, run.id, SyncRun.State.HELD if settled.held_removals else ended, progress,
            unclean_reason=settled.unclean_reason, held_removals=settled.held_removals, held_reason=settled.held_reason,
            by_row=run.by_row and not reader.pages_unread, relisted=settled.relisted,
        )  # fmt: skip
        report = SyncReport(
            run.id, SyncRun.State.HELD if held_count else ended, progress, reader.begun,
            clean=not settled.unclean_reason, unclean_reason=settled.unclean_reason, again=settled.again,
            held_count=held_count, held_reason=settled.held_reason, unread=reader.pages_unread,
        )  # fmt: skip
        _log_ended(report, seconds)
        reader.log_refused()
        if held_count:
            self._session.observers.removals_held(run.id, held_count, settled.held_reason)
        return report


def _log_ended(report: SyncReport, seconds: float) -> None:
    done: Progress = report.progress
    log.info(
        "sync_ended", state=str(report.state), clean=report.clean, seconds=round(seconds, 2),
        listed=done.listed, created=done.created, updated=done.updated, removed=done.removed,
        unchanged=done.unchanged, refused=done.refused, held_count=report.held_count,
    )  # fmt: skip
    if not report.clean:
        log.warning("sync_unclean", reason=report.unclean_reason)
    if report.held_count:
        log.warning("removals_held", count=report.held_count, reason=report.held_reason)
