"""Read the whole listing into the mirror, page by page, for one sync run."""

import asyncio
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from marketplace_sync.daemon.absence import Named, named_categories
from marketplace_sync.daemon.reading import nothing_readable, read_pages, requested
from marketplace_sync.daemon.sync_writes import SyncWrites
from marketplace_sync.engine.absence import Listing
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.absence import SeenIds
from marketplace_sync.mirror.arrived import LISTED_CATEGORY, Effect, Item, RefusedInput
from marketplace_sync.mirror.runs import save_progress
from marketplace_sync.models import DeadLetter
from marketplace_sync.protocol.events import CategoryPage, RefusedRow, SkillPage
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.errors import UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)

# Dead letters made before other tasks have a turn, 4 ms: a page may have 100,000 rows, all of them refused.
_DEAD_LETTERS_PER_TURN = 500
# Progress is written to the database and the log at most this often (seconds).
_PROGRESS_EVERY = 1.0


class StreamReports(Protocol):
    """The reports of the stream while a listing is read; implemented by `daemon.intake.Intake`."""

    @property
    def moves(self) -> int:
        """Return how many skills were reported to come or go, since the start."""

    @property
    def announced(self) -> Container[str]:
        """Return the skills whose removal was reported in messages that could not be applied."""


class NoStream:
    """The reports of a stream that is not there."""

    moves = 0
    announced: Container[str] = frozenset()


class ListingReader:
    """Read one listing and have it applied. `plan` decides which pages are read."""

    def __init__(
        self,
        market: MarketClient,
        writes: SyncWrites,
        plan: PagePlan,
        stream: StreamReports,
        clock: Callable[[], float],
    ) -> None:
        self._market = market
        self._writes = writes
        self._plan = plan
        self._stream = stream
        self._clock = clock
        self._arrive = writes.session.arrivals.next
        self._seen = SeenIds()
        self._unreadable = 0
        self._categories: asyncio.Task[tuple[int, CategoryPage]] | None = None  # until they are submitted
        self._category_names: Sequence[str] | None = None
        # On their way into the mirror: the categories, and the page that was read last.
        self._categories_submitted: asyncio.Task[list[Effect]] | None = None
        self._submitted: asyncio.Task[list[Effect]] | None = None
        self._refused_first: Refusal | None = None
        self._shown = clock()
        self._moves_before = stream.moves
        self.begun = self._arrive()

    @property
    def pages_unread(self) -> str:
        """Return why not every page was read; "" where all were."""
        return self._plan.problem

    def nothing_readable(self) -> str:
        """Return the reason if every listed skill was refused, else ""."""
        done, first = self._writes.progress, self._refused_first
        read = done.created + done.updated + done.unchanged + done.stale
        named = f"{first.key or 'no readable id'}: {first}" if first is not None else "refused by the database"
        return nothing_readable(read, done.refused - done.refused_categories, named)

    def log_refused(self) -> None:
        """Log one line for all refused rows of the listing: the rows themselves are dead letters."""
        if (first := self._refused_first) is not None:
            log.warning("rows_refused", count=self._writes.progress.refused, first=str(first), first_key=first.key)

    async def read(self) -> Named:
        """Read and apply the whole listing. Return what it named.

        Raise `UpstreamError` once everything that had arrived is applied. No page is applied before the categories that
        it may name.
        """
        self._categories = asyncio.create_task(
            requested(self._arrive, lambda begun: self._market.categories(begun=begun)), name="categories"
        )
        try:
            await read_pages(self._market, self._plan, self._arrive, self._take_page)
            await self._all_committed()
        except UpstreamError:
            if self._categories is not None and self._categories.done():
                await self._submit_categories()  # or raise their error, whose Retry-After may be longer
            await self._all_committed()
            raise
        finally:
            await self._cancel()
        return Named(
            begun=self.begun, found_by=self._writes.run if self._all_found() else None, skills=self._seen,
            categories=self._category_names, listing=self._listing(),
        )  # fmt: skip

    async def _cancel(self) -> None:
        tasks = (self._categories, self._categories_submitted, self._submitted)
        under_way = [task for task in tasks if task is not None]
        for task in under_way:
            task.cancel()
        # A task that failed beside the one whose error is raised is awaited too, or asyncio complains of it.
        await asyncio.gather(*under_way, return_exceptions=True)

    def _listing(self) -> Listing:
        return Listing(
            listed=len(self._seen),
            first_total=self._plan.first_total,
            last_total=self._plan.last_total,
            problem=self._plan.problem,
            unreadable=self._unreadable,
            moves=self._stream.moves - self._moves_before,
        )

    def _all_found(self) -> bool:
        """Return whether each row is a skill that was stored when its batch was planned, and none is listed twice."""
        done = self._writes.progress
        if self._writes.run.by_row or not self._writes.nothing_fleeting:
            return False
        return done.refused == done.stale == 0 and done.created + done.updated + done.unchanged == len(self._seen)

    async def _submit_categories(self) -> None:
        """Submit the categories, once: they are requested together with the first page, and applied with it."""
        if self._categories is None:
            return
        arrival, page = await self._categories
        self._categories = None  # the task references the page
        self._writes.progress.listed_categories = len(page.categories) + len(page.refused)
        self._category_names = named_categories(page)
        items: list[Item] = [self._writes.arrived(record, arrival) for record in page.categories]
        items += await self._dead_letters(page.refused, LISTED_CATEGORY)
        self._categories_submitted = asyncio.create_task(self._writes.submit(items), name="submit categories")

    async def _take_page(self, number: int, arrival: int, page: SkillPage) -> None:
        named = [row.refusal.key for row in page.refused if row.refusal.key is not None]
        self._unreadable += len(page.refused) - len(named)
        new = self._seen.add_all(record.skill_id for record in page.skills) + self._seen.add_all(named)
        self._plan.read(number, page, new=new)
        await self._submit_categories()
        # Its rows first, then the dead letters.
        items: list[Item] = [self._writes.arrived(record, arrival) for record in page.skills]
        items += await self._dead_letters(page.refused)
        # This page may be planned while the one before it is being written (see `Writer`); no more than two wait.
        # It is stored before the wait, so that whatever ends the wait finds it to cancel.
        before = self._submitted
        self._submitted = asyncio.create_task(self._writes.submit(items), name=f"submit page {number}")
        if before is not None:
            self._writes.count(await before)
        progress = self._writes.progress
        progress.pages_done, progress.pages_total = self._plan.pages_read, self._plan.last_page
        progress.listed = len(self._seen)
        await self._show_progress()

    async def _all_committed(self) -> None:
        if self._categories_submitted is not None:
            self._writes.count_categories(await self._categories_submitted)
        if self._submitted is not None:
            self._writes.count(await self._submitted)
            self._submitted = None

    async def _show_progress(self) -> None:
        now = self._clock()
        if now - self._shown < _PROGRESS_EVERY:
            return
        self._shown, progress, session = now, self._writes.progress, self._writes.session
        log.info("sync_progress", pages=progress.pages_done, of=progress.pages_total, listed=progress.listed)
        await session.database.control(save_progress, session.lease, self._writes.run.id, progress)

    async def _dead_letters(self, rows: Sequence[RefusedRow], kind: str = "") -> list[Item]:
        dead_letters: list[Item] = []
        for number, row in enumerate(rows, 1):
            refusal = replace(row.refusal, kind=kind)
            if self._refused_first is None or (self._refused_first.kind and not kind):  # skills before categories
                self._refused_first = refusal
            dead_letters.append(RefusedInput.of(refusal, row.raw, DeadLetter.Source.LISTING))
            if number % _DEAD_LETTERS_PER_TURN == 0:
                await asyncio.sleep(0)
        return dead_letters
