"""One full pass: read the listing, apply it, and settle what it did not name (law 5)."""

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import read_pages, requested
from marketplace_sync.daemon.writer import Writer
from marketplace_sync.engine.absence import Listing, Verdict, judge, unclean_reason
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.absence import SeenIds, absent_categories, absent_skills
from marketplace_sync.mirror.arrived import (
    LISTED_CATEGORY,
    Arrived,
    CategoryAbsent,
    Effect,
    Event,
    Item,
    Letter,
    SkillAbsent,
)
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.runs import Progress, begin_run, end_run, save_progress
from marketplace_sync.models import DeadLetter, FeedChange, SyncRun
from marketplace_sync.protocol.events import BrokenRow, CategoryPage, SkillPage
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.faults import UpstreamError
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
class PassReport:
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


class PassRunner:
    """Runs passes one after the other, and remembers between two of them what the first one lacked.

    `held` is told of a run that holds removals back: its id, how many, why.
    `source` and `forced` are what the applied rows carry: `repair` takes the marketplace's word
    whatever the times say, and removes without asking, for a person asked.
    """

    def __init__(
        self,
        market: MarketClient,
        writer: Writer,
        database: Database,
        lease: Lease,
        arrivals: Arrivals,
        *,
        page_size: int,
        max_pages: int,
        stream: StreamWord | None = None,
        repair: bool = False,
        held: Callable[[int, int, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._market = market
        self._writer = writer
        self._database = database
        self._lease = lease
        self._arrivals = arrivals
        self._page_size = page_size
        self._max_pages = max_pages
        self._stream = stream or NoStream()
        self._repair = repair
        self._held = held
        self._clock = clock
        # Skills that the last clean pass lacked, and the arrival at which that pass began.
        self._absent_before: dict[str, int] = {}
        self._asked_last = ""  # for its proof, in whatever pass

    async def run(self, reason: str, *, approved: frozenset[str] = frozenset()) -> PassReport:
        """One pass. `approved`: skills whose removal a person let go ahead.

        A marketplace that can't be read ends it as `failed`; database trouble and a lost lease are raised.
        """
        run_id = await self._database.control(begin_run, self._lease, reason)
        with bound_contextvars(run=run_id):
            log.info("pass_begun", reason=reason)
            return await self._run(_Pass(self, run_id, approved), run_id)

    async def _run(self, one: "_Pass", run_id: int) -> PassReport:
        try:
            report = await one.read_and_settle()
        except UpstreamError as fault:
            await self._database.control(
                end_run, self._lease, run_id, SyncRun.State.FAILED, one.progress, error=fault.reason
            )
            log.warning("pass_failed", reason=fault.reason)
            one.tell_refused()
            return PassReport(
                run_id,
                SyncRun.State.FAILED,
                one.progress,
                one.begun,
                error=fault.reason,
                retry_after=fault.retry_after,
                refused_token=fault.refused_token,
            )
        log.info(
            "pass_ended", state=str(report.state), clean=report.clean, seconds=round(one.seconds(), 2),
            listed=one.progress.listed, created=one.progress.created, updated=one.progress.updated,
            removed=one.progress.removed, unchanged=one.progress.unchanged, refused=one.progress.refused,
            held=report.held,
        )  # fmt: skip
        one.tell_refused()
        if report.unclean_reason:
            log.warning("pass_unclean", reason=report.unclean_reason)
        if report.held:
            log.warning("removals_held", count=report.held, reason=report.held_reason)
            self._held(run_id, report.held, report.held_reason)
        return report


class _Pass:
    """The working state of one pass."""

    def __init__(self, runner: PassRunner, run_id: int, approved: frozenset[str]) -> None:
        self._r = runner
        self._run_id = run_id
        self._approved = approved
        self._source = FeedChange.Source.REPAIR if runner._repair else FeedChange.Source.LISTING
        self._seen = SeenIds()
        self._unreadable = 0
        self._submitted: asyncio.Task[list[Effect]] | None = None  # the page taken last, on its way into the mirror
        self._refused_first: Refusal | None = None
        self._started = self._shown = runner._clock()
        self._moves_before = runner._stream.moves
        self.begun = runner._arrivals.next()
        self.progress = Progress()

    def seconds(self) -> float:
        return self._r._clock() - self._started

    def tell_refused(self) -> None:
        """One line a pass, whatever comes broken in each: the rows themselves are dead letters."""
        if (first := self._refused_first) is not None:
            log.warning("rows_refused", count=self.progress.refused, first=str(first), first_key=first.key)

    async def read_and_settle(self) -> PassReport:
        listed_categories = await self._read_categories()
        plan = PagePlan(self._r._page_size, self._r._max_pages)
        try:
            await read_pages(self._r._market, plan, self._r._arrivals.next, lambda *page: self._take_page(plan, *page))
            await self._last_page_committed()
        except UpstreamError:
            await self._last_page_committed()
            raise
        finally:
            if self._submitted is not None:
                self._submitted.cancel()
        unclean = unclean_reason(
            Listing(
                listed=len(self._seen),
                first_total=plan.first_total,
                last_total=plan.last_total,
                fault=plan.fault,
                unreadable=self._unreadable,
                moves=self._r._stream.moves - self._moves_before,
            )
        )
        verdict, unproved = await self._settle_skills(clean=not unclean)
        await self._settle_categories(listed_categories)
        state = SyncRun.State.HELD if verdict.hold else SyncRun.State.DONE
        await self._r._database.control(
            end_run,
            self._r._lease,
            self._run_id,
            state,
            self.progress,
            unclean_reason=unclean,
            held=verdict.hold,
            held_reason=verdict.hold_reason,
        )
        return PassReport(
            self._run_id, state, self.progress, self.begun,
            clean=not unclean, again=bool(unproved), held=len(verdict.hold), held_reason=verdict.hold_reason,
            unclean_reason=unclean,
        )  # fmt: skip

    async def _read_categories(self) -> list[str] | None:
        arrival, page = await requested(self._r._arrivals.next, lambda begun: self._r._market.categories(begun=begun))
        items: list[Item] = [self._arrived(record, arrival) for record in page.categories]
        items += await self._letters(page.broken, LISTED_CATEGORY)
        self._count(await self._r._writer.submit(items), count_skills=False)
        return _category_names(page)

    async def _take_page(self, plan: PagePlan, number: int, arrival: int, page: SkillPage) -> None:
        named = [row.refusal.key for row in page.broken if row.refusal.key is not None]
        self._unreadable += len(page.broken) - len(named)
        new = self._seen.add_all(record.skill_id for record in page.skills) + self._seen.add_all(named)
        plan.read(number, page, new=new)
        items: list[Item] = [self._arrived(record, arrival) for record in page.skills]
        items += await self._letters(page.broken)
        # This page may be planned while the one before it is being written (see `Writer`); no more than two wait.
        # It is kept before the wait, so that whatever ends the wait finds it to cancel.
        before = self._submitted
        self._submitted = asyncio.create_task(self._r._writer.submit(items), name=f"submit page {number}")
        if before is not None:
            self._count(await before)
        self.progress.pages_done = plan.pages_read
        self.progress.pages_total = plan.last_page
        self.progress.listed = len(self._seen)
        await self._show_progress()

    async def _last_page_committed(self) -> None:
        if self._submitted is not None:
            self._count(await self._submitted)
            self._submitted = None

    async def _show_progress(self) -> None:
        now = self._r._clock()
        if now - self._shown >= _PROGRESS_EVERY:
            self._shown = now
            log.info(
                "pass_progress", pages=self.progress.pages_done, of=self.progress.pages_total,
                listed=self.progress.listed,
            )  # fmt: skip
            await self._r._database.control(save_progress, self._r._lease, self._run_id, self.progress)

    async def _settle_skills(self, *, clean: bool) -> tuple[Verdict, frozenset[str]]:
        """Remove what is proved to be gone; the verdict, and what a second pass has yet to prove."""
        absent, size = await self._r._database.control(absent_skills, self._seen, self.begun)
        before = self._r._absent_before
        # One that was heard of after that pass had begun was not lacking then: its proof begins anew.
        lacked_twice = {skill_id for skill_id, heard in absent.items() if heard <= before.get(skill_id, -1)}
        verdict = judge(
            absent,
            clean=clean,
            listed=len(self._seen),
            mirror_size=size,
            announced=self._r._stream.announced,
            absent_before=lacked_twice,
            approved=frozenset(absent) if self._r._repair else self._approved,
            asked_last=self._r._asked_last,
        )
        await self._remove((SkillAbsent(skill_id) for skill_id in sorted(verdict.remove)), self.begun)
        unproved = set(verdict.again)
        for asked, skill_id in enumerate(verdict.prove):
            if not await self._prove(skill_id):
                # One that can't be asked for now takes its four tries; twenty of them would hold up every other pass.
                unproved.update(verdict.prove[asked:])
                break
        # An unclean pass proves nothing, and takes nothing of what a clean one before it proved.
        if clean:
            self._r._absent_before = dict.fromkeys(unproved, self.begun)
        else:
            self._r._absent_before = {skill_id: before[skill_id] for skill_id in lacked_twice}
        return verdict, frozenset(unproved) if clean else frozenset()

    async def _prove(self, skill_id: str) -> bool:
        """Ask for one absent skill; whether the answer settled it."""
        if self._r._market.single_fetch_wait() > 0:
            return False
        self._r._asked_last = skill_id
        try:
            arrival, record = await requested(
                self._r._arrivals.next, lambda begun: self._r._market.skill(skill_id, begun=begun)
            )
        except UpstreamError as fault:
            log.warning("proof_failed", skill_id=skill_id, reason=fault.reason)
            return False
        if record is None:
            await self._remove([SkillAbsent(skill_id)], arrival)
        else:
            self._count(await self._r._writer.submit([self._arrived(record, arrival)]))
        return True

    async def _settle_categories(self, listed: Sequence[str] | None) -> None:
        """A category that no skill names goes when two listings lack it; one that proves nothing is no such listing."""
        if not listed or not await self._r._database.control(absent_categories, listed, self.begun):
            return
        arrival, page = await requested(self._r._arrivals.next, lambda begun: self._r._market.categories(begun=begun))
        names = _category_names(page)
        if not names:
            return
        absent = await self._r._database.control(absent_categories, [*names, *listed], self.begun)
        await self._r._writer.submit([self._arrived(CategoryAbsent(name), arrival) for name in absent])

    async def _remove(self, events: Iterable[SkillAbsent], arrival: int) -> None:
        items = [self._arrived(event, arrival) for event in events]
        for start in range(0, len(items), _REMOVAL_BATCH):
            effects = await self._r._writer.submit(items[start : start + _REMOVAL_BATCH])
            self.progress.removed += effects.count(Effect.REMOVED)

    def _arrived(self, event: Event, arrival: int) -> Arrived:
        return Arrived(event, arrival, self._source, polled=True, forced=self._r._repair, run_id=self._run_id)

    async def _letters(self, rows: Sequence[BrokenRow], kind: str = "") -> list[Item]:
        letters: list[Item] = []
        for number, row in enumerate(rows, 1):
            self._refused_first = self._refused_first or row.refusal
            letters.append(Letter.of(replace(row.refusal, kind=kind), row.raw, DeadLetter.Source.LISTING))
            if number % _LETTERS_A_TURN == 0:
                await asyncio.sleep(0)
        return letters

    def _count(self, effects: Sequence[Effect], *, count_skills: bool = True) -> None:
        self.progress.refused += effects.count(Effect.REFUSED)
        if count_skills:
            self.progress.created += effects.count(Effect.CREATED)
            self.progress.updated += effects.count(Effect.UPDATED)
            self.progress.unchanged += effects.count(Effect.UNCHANGED)
            self.progress.stale += effects.count(Effect.STALE)


def _category_names(page: CategoryPage) -> list[str] | None:
    """The categories that a listing names; `None` where a broken row hides a name, so that none is known to lack."""
    broken = [row.refusal.key for row in page.broken]
    if None in broken:
        return None
    return [record.name for record in page.categories] + [name for name in broken if name is not None]
