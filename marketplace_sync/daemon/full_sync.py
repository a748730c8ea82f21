"""One full pass: the listing is read and applied page by page, what it lacks is settled, and the run says how it went.

What may be removed, and when, is the matter of `daemon.absence`; it asks the pass to do it.
"""

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from marketplace_sync.daemon.absence import Absences, Named, Settled, named_categories
from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import nothing_readable, read_pages, requested
from marketplace_sync.daemon.write_queue import WriteQueue
from marketplace_sync.engine.absence import Listing
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.absence import BegunRun, SeenIds
from marketplace_sync.mirror.arrived import (
    LISTED_CATEGORY,
    Arrived,
    CategoryAbsent,
    Effect,
    Event,
    Item,
    RefusedInput,
    SkillAbsent,
)
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.runs import Progress, begin_run, end_run, save_progress
from marketplace_sync.models import DeadLetter, FeedChange, SyncRun
from marketplace_sync.protocol.events import CategoryPage, RefusedRow, SkillPage, SkillRecord
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.errors import NothingReadableError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)

# Removals are applied in batches of this many, like pages.
_REMOVAL_BATCH = 500
# Letters made before others have a turn, 4 ms: a page may have 100,000 rows, all of them refused.
_LETTERS_A_TURN = 500
# Progress is shown, in the database and in the log, at most this often (seconds).
_PROGRESS_EVERY = 1.0


class StreamWord(Protocol):
    """What the stream told meanwhile (`daemon.intake.Intake` says it; without a stream, nothing was told)."""

    @property
    def moves(self) -> int:
        """Skills told to come or go, counted since the start."""

    @property
    def announced(self) -> Container[str]:
        """Skills told to be gone in messages that could not be applied."""


class NoStream:
    """The word of a stream that is not there."""

    moves = 0
    announced: Container[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How a pass ended. `error` is "" unless it failed. `again`: a second pass has to prove absences.

    `begun` is the arrival at which it began; `settled`: nothing that it missed is left to be proved.
    """

    run_id: int
    state: SyncRun.State
    progress: Progress
    begun: int
    clean: bool = False
    again: bool = False
    held: int = 0
    held_reason: str = ""
    unclean_reason: str = ""
    error: str = ""
    retry_after: float | None = None
    refused_token: bool = False
    unread: str = ""  # why not every page was read; "" where all were

    @property
    def refused(self) -> int:
        """Listed records that could not be read."""
        return self.progress.refused


class SyncRunner:
    """Runs passes one after the other.

    `held` is told of a run that holds removals back: its id, how many, why.
    `source` and `forced` are what the applied rows carry: `repair` takes the marketplace's word
    whatever the times say, and removes without asking, for a person asked.
    `by_row`: each run compares the stored rows themselves, and not only the one that is due to (law 16); a repair does
    so too. `interval`: seconds between two runs.
    """

    def __init__(
        self,
        market: MarketClient,
        queue: WriteQueue,
        database: Database,
        lease: Lease,
        arrivals: Arrivals,
        *,
        page_size: int,
        max_pages: int,
        stream: StreamWord | None = None,
        repair: bool = False,
        by_row: bool = False,
        interval: float = 0.0,
        held: Callable[[int, int, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._market = market
        self._queue = queue
        self._database = database
        self._lease = lease
        self._arrivals = arrivals
        self._page_size = page_size
        self._max_pages = max_pages
        self._stream = stream or NoStream()
        self._repair = repair
        self._by_row = by_row or repair
        self._interval = timedelta(seconds=interval)
        self._held = held
        self._clock = clock
        self._absences = Absences(market, database, arrivals, self._stream.announced, repair=repair)

    async def run(self, reason: str, *, approved: frozenset[str] = frozenset()) -> SyncReport:
        """One pass. `approved`: skills whose removal a person let go ahead.

        A marketplace that can't be read ends it as `failed`; database trouble and a lost lease are raised.
        """
        run = await self._database.control(begin_run, self._lease, reason, by_row=self._by_row, interval=self._interval)
        with bound_contextvars(run=run.id):
            log.info("sync_began", reason=reason, by_row=run.by_row)
            one = _FullSync(self, run)
            try:
                settled = await self._absences.settle(await one.read(), one, approved=approved)
            except UpstreamError as fault:
                return await self._failed(one, run.id, fault)
            return await self._ended(one, run.id, settled)

    async def _failed(self, one: "_FullSync", run_id: int, fault: UpstreamError) -> SyncReport:
        await self._database.control(
            end_run, self._lease, run_id, SyncRun.State.FAILED, one.progress, error=fault.reason
        )
        log.warning("sync_failed", reason=fault.reason)
        one.tell_refused()
        return SyncReport(
            run_id, SyncRun.State.FAILED, one.progress, one.begun,
            error=fault.reason, retry_after=fault.retry_after, refused_token=fault.refused_token,
        )  # fmt: skip

    async def _ended(self, one: "_FullSync", run_id: int, settled: Settled) -> SyncReport:
        ended = SyncRun.State.DEGRADED if one.progress.refused else SyncRun.State.DONE
        held = await self._database.control(
            end_run, self._lease, run_id, SyncRun.State.HELD if settled.held else ended, one.progress,
            unclean_reason=settled.unclean_reason, held=settled.held, held_reason=settled.held_reason,
            by_row=one.read_by_row, relisted=settled.relisted,
        )  # fmt: skip
        clean, state = not settled.unclean_reason, SyncRun.State.HELD if held else ended
        log.info(
            "sync_ended", state=str(state), clean=clean, seconds=round(one.seconds(), 2),
            listed=one.progress.listed, created=one.progress.created, updated=one.progress.updated,
            removed=one.progress.removed, unchanged=one.progress.unchanged, refused=one.progress.refused,
            held=held,
        )  # fmt: skip
        one.tell_refused()
        if not clean:
            log.warning("sync_unclean", reason=settled.unclean_reason)
        if held:
            log.warning("removals_held", count=held, reason=settled.held_reason)
            self._held(run_id, held, settled.held_reason)
        return SyncReport(
            run_id, state, one.progress, one.begun,
            clean=clean, again=settled.again, held=held, held_reason=settled.held_reason,
            unclean_reason=settled.unclean_reason, unread=one.pages_unread,
        )  # fmt: skip


class _FullSync:
    """The working state of one pass: reads the listing into the mirror, and applies what settling it asks for."""

    def __init__(self, runner: SyncRunner, run: BegunRun) -> None:
        self._r = runner
        self._run = run
        self._source = FeedChange.Source.REPAIR if runner._repair else FeedChange.Source.LISTING
        self._plan = PagePlan(runner._page_size, runner._max_pages)
        self._seen = SeenIds()
        self._unreadable = 0
        self._categories: asyncio.Task[tuple[int, CategoryPage]] | None = None  # until they are submitted
        self._category_names: Sequence[str] | None = None
        # On their way into the mirror: the categories, and the page taken last.
        self._categories_submitted: asyncio.Task[list[Effect]] | None = None
        self._submitted: asyncio.Task[list[Effect]] | None = None
        self._refused_first: Refusal | None = None
        self._started = self._shown = runner._clock()
        self._moves_before = runner._stream.moves
        self._fleeting_before = runner._queue.fleeting
        self.begun = runner._arrivals.next()
        self.progress = Progress()

    @property
    def pages_unread(self) -> str:
        """Why not every page was read; "" where all were."""
        return self._plan.problem

    @property
    def read_by_row(self) -> bool:
        """Every page was read, and compared with the stored rows themselves."""
        return self._run.by_row and not self._plan.problem

    def seconds(self) -> float:
        return self._r._clock() - self._started

    def tell_refused(self) -> None:
        """One line a pass, whatever comes broken in each: the rows themselves are dead letters."""
        if (first := self._refused_first) is not None:
            log.warning("rows_refused", count=self.progress.refused, first=str(first), first_key=first.key)

    async def read(self) -> Named:
        """Read all and apply it; what was named.

        Raises `UpstreamError` with what had come applied: no page is before the categories that it may name.
        """
        self._categories = asyncio.create_task(
            requested(self._r._arrivals.next, lambda begun: self._r._market.categories(begun=begun)), name="categories"
        )
        try:
            await read_pages(self._r._market, self._plan, self._r._arrivals.next, self._take_page)
            await self._all_committed()
            self._require_something_readable()
        except UpstreamError:
            if self._categories is not None and self._categories.done():
                await self._submit_categories()  # or their fault, which may ask for more patience than that of a page
            await self._all_committed()
            raise
        finally:
            under_way = [
                task for task in (self._categories, self._categories_submitted, self._submitted) if task is not None
            ]
            for task in under_way:
                task.cancel()
            # One that failed beside what is raised is looked at too, or asyncio complains of it.
            await asyncio.gather(*under_way, return_exceptions=True)
        listing = Listing(
            listed=len(self._seen),
            first_total=self._plan.first_total,
            last_total=self._plan.last_total,
            problem=self._plan.problem,
            unreadable=self._unreadable,
            moves=self._r._stream.moves - self._moves_before,
        )
        return Named(
            begun=self.begun, found_by=self._run if self._all_found() else None, skills=self._seen,
            categories=self._category_names, listing=listing,
        )  # fmt: skip

    def _require_something_readable(self) -> None:
        """Raise `NothingReadableError` when every listed skill was refused. Another try at once would be no better."""
        done = self.progress
        read = done.created + done.updated + done.unchanged + done.stale
        first = self._refused_first
        named = f"{first.key or 'no readable id'}: {first}" if first is not None else "refused by the database"
        if reason := nothing_readable(read, done.refused - done.refused_categories, named):
            raise NothingReadableError(reason, self._r._interval.total_seconds())

    def _all_found(self) -> bool:
        """Is each row a skill that the mirror had, when its batch was planned, and none there twice?"""
        done = self.progress
        if self._run.by_row or self._r._queue.fleeting != self._fleeting_before:
            return False
        return done.refused == done.stale == 0 and done.created + done.updated + done.unchanged == len(self._seen)

    async def found(self, record: SkillRecord, arrival: int) -> None:
        self._count(await self._r._queue.submit([self._arrived(record, arrival)]))

    async def remove_skills(self, skill_ids: Sequence[str], arrival: int) -> None:
        items = [self._arrived(SkillAbsent(skill_id), arrival) for skill_id in skill_ids]
        for start in range(0, len(items), _REMOVAL_BATCH):
            effects = await self._r._queue.submit(items[start : start + _REMOVAL_BATCH])
            self.progress.removed += effects.count(Effect.REMOVED)

    async def remove_categories(self, names: Sequence[str], arrival: int) -> None:
        await self._r._queue.submit([self._arrived(CategoryAbsent(name), arrival) for name in names])

    async def _submit_categories(self) -> None:
        """Once: they are asked for together with the first page, and go into the mirror with it."""
        if self._categories is None:
            return
        arrival, page = await self._categories
        self._categories = None  # it holds the page
        self.progress.listed_categories = len(page.categories) + len(page.refused)
        self._category_names = named_categories(page)
        items: list[Item] = [self._arrived(record, arrival) for record in page.categories]
        items += await self._letters(page.refused, LISTED_CATEGORY)
        self._categories_submitted = asyncio.create_task(self._r._queue.submit(items), name="submit categories")

    async def _take_page(self, number: int, arrival: int, page: SkillPage) -> None:
        named = [row.refusal.key for row in page.refused if row.refusal.key is not None]
        self._unreadable += len(page.refused) - len(named)
        new = self._seen.add_all(record.skill_id for record in page.skills) + self._seen.add_all(named)
        self._plan.read(number, page, new=new)
        await self._submit_categories()
        # Its rows first, then the dead letters.
        items: list[Item] = [self._arrived(record, arrival) for record in page.skills]
        items += await self._letters(page.refused)
        # This page may be planned while the one before it is being written (see `Writer`); no more than two wait.
        # It is kept before the wait, so that whatever ends the wait finds it to cancel.
        before = self._submitted
        self._submitted = asyncio.create_task(self._r._queue.submit(items), name=f"submit page {number}")
        if before is not None:
            self._count(await before)
        self.progress.pages_done = self._plan.pages_read
        self.progress.pages_total = self._plan.last_page
        self.progress.listed = len(self._seen)
        await self._show_progress()

    async def _all_committed(self) -> None:
        if self._categories_submitted is not None:
            self._count(await self._categories_submitted, count_skills=False)
        if self._submitted is not None:
            self._count(await self._submitted)
            self._submitted = None

    async def _show_progress(self) -> None:
        now = self._r._clock()
        if now - self._shown >= _PROGRESS_EVERY:
            self._shown = now
            log.info(
                "sync_progress", pages=self.progress.pages_done, of=self.progress.pages_total,
                listed=self.progress.listed,
            )  # fmt: skip
            await self._r._database.control(save_progress, self._r._lease, self._run.id, self.progress)

    def _arrived(self, event: Event, arrival: int) -> Arrived:
        return Arrived(
            event, arrival, self._source, polled=True, forced=self._r._repair, run_id=self._run.id,
            by_row=self._run.by_row,
        )  # fmt: skip

    async def _letters(self, rows: Sequence[RefusedRow], kind: str = "") -> list[Item]:
        letters: list[Item] = []
        for number, row in enumerate(rows, 1):
            if self._refused_first is None or (self._refused_first.kind and not kind):  # a skill is named rather
                self._refused_first = replace(row.refusal, kind=kind)
            letters.append(RefusedInput.of(replace(row.refusal, kind=kind), row.raw, DeadLetter.Source.LISTING))
            if number % _LETTERS_A_TURN == 0:
                await asyncio.sleep(0)
        return letters

    def _count(self, effects: Sequence[Effect], *, count_skills: bool = True) -> None:
        refused = effects.count(Effect.REFUSED)
        self.progress.refused += refused
        if not count_skills:
            self.progress.refused_categories += refused
        else:
            self.progress.created += effects.count(Effect.CREATED)
            self.progress.updated += effects.count(Effect.UPDATED)
            self.progress.unchanged += effects.count(Effect.UNCHANGED)
            self.progress.stale += effects.count(Effect.STALE)
