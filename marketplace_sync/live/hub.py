"""The feed's one reader in a web process: it looks for what is new, once for all clients, and wakes them.

It works while somebody is connected and holds one database connection meanwhile. What it finds is encoded once and
kept in a bounded ring, out of which each client takes what follows its own place; there is no queue a client, so one
that does not read keeps nothing but its place.
"""

import asyncio
import os
import platform
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog
from django.db import Error

from marketplace_sync.live.door import Credential, no_longer_valid
from marketplace_sync.live.entries import Entry, Portion, Wanted, entries_of, portion_of
from marketplace_sync.live.feed import FeedGoneError, changes_after, newest_seq
from marketplace_sync.live.hints import listen
from marketplace_sync.live.lanes import Subscription
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.live.ring import Ring
from marketplace_sync.mirror.metrics import forget_feed_server, save_feed_server

log = structlog.get_logger(__name__)

# Places at which unfiltered clients are together; nearly always it is one.
_SHARED_PLACES = 16
_FAREWELL_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Subscriber:
    """A client's place in the hub. `ended` is set when it has to leave: true for good, false for a fault of ours.

    `seq`: what it has been sent, up to that number; `None` before the first.
    """

    shown: Credential
    seq: int | None = None
    ended: "asyncio.Future[bool]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, *, for_good: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(for_good)


class Hub:
    """One a process; it belongs to the event loop of whoever is seated."""

    def __init__(self, limits: SubscriptionLimits | None = None) -> None:
        self.limits = limits or SubscriptionLimits()
        # For clients: who they are, and the pages of those that catch up. Not the tail's, which nobody may hold up.
        self.clients_lane = Subscription("feed-clients")
        self._tail_lane = Subscription("feed-tail", keeps=True)
        # It writes, and may have to wait for another writer.
        self._census_lane = Subscription("feed-census")
        self._seats: set[Subscriber] = set()
        self._ring: Ring | None = None
        self._news = asyncio.Event()  # replaced when set, so that each growth wakes everyone once
        self._hinted = asyncio.Event()
        self._portions: dict[int, Portion] = {}  # what unfiltered clients at the same place share
        self._looked_at = 0.0
        self._running: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Does it look at the feed?"""
        return self._running is not None

    @property
    def seats(self) -> int:
        """How many clients there are."""
        return len(self._seats)

    @property
    def lag(self) -> int:
        """By how many changes the last of the clients is behind what is known here."""
        newest = self._ring.newest if self._ring is not None else 0
        return max((newest - seat.seq for seat in self._seats if seat.seq is not None and seat.seq < newest), default=0)

    @property
    def looked_lately(self) -> bool:
        """Has the feed been read within a heartbeat? Otherwise nobody may be told that there is nothing new."""
        return asyncio.get_running_loop().time() - self._looked_at < self.limits.heartbeat

    @asynccontextmanager
    async def seated(self, shown: Credential) -> AsyncIterator[Subscriber]:
        """Be a client while the body runs. The first starts the hub, the last ends it."""
        seat = Subscriber(shown)
        self._seats.add(seat)
        if self._running is None:
            self._ring = None
            self._news = asyncio.Event()
            self._hinted = asyncio.Event()
            self._running = asyncio.create_task(self._run(), name="feed hub")
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            if not self._seats and self._running is not None:
                running, self._running = self._running, None
                running.cancel()
                await asyncio.wait([running])

    async def newest(self) -> int:
        """The newest number known here; waits for the first look."""
        while self._ring is None:
            await self._news.wait()
        return self._ring.newest

    async def after(self, seq: int, wanted: Wanted) -> Portion:
        """What follows `seq` for whoever wants that, as much as one message takes.

        Raises `FeedGoneError`, and what the database raises.
        """
        if seq == await self.newest():
            return "", seq
        ring = self._ring
        entries = ring.after(seq) if ring is not None and seq < ring.newest else None
        if ring is None or entries is None:
            # Behind the ring; or ahead of it, where another process's client may rightly be.
            return await self.clients_lane.run(_read_portion, seq, wanted, self.limits.page)
        if not wanted.all:
            return portion_of(entries, wanted, ring.newest)
        portion = self._portions.get(seq) or portion_of(entries, wanted, ring.newest)
        if len(self._portions) < _SHARED_PLACES:
            self._portions[seq] = portion
        return portion

    async def grown_beyond(self, seq: int) -> None:
        """Wait until there is more than `seq`."""
        while self._ring is None or self._ring.newest <= seq:
            await self._news.wait()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tail(), name="feed tail")
                tasks.create_task(self._check_passes(), name="feed passes")
                tasks.create_task(self._take_census(), name="feed census")
                tasks.create_task(listen(self._hinted.set), name="feed hints")
        except Exception:  # the top of a task: its clients are told, and come back to a new one
            log.exception("feed_hub_failed")
        finally:
            if self._running is asyncio.current_task():
                self._running = None
                for seat in self._seats:
                    seat.end(for_good=False)
                self._seats.clear()
            await self._tail_lane.let_go()

    async def _tail(self) -> None:
        """Look for what is new: at every hint, and every `poll` seconds without."""
        limits = self.limits
        away = False
        while True:
            self._hinted.clear()
            try:
                more = await self._look()
            except Error as fault:
                if not away:
                    log.warning("feed_database_away", reason=str(fault).strip())
                away = True
                await asyncio.sleep(limits.retry)
                continue
            if away:
                log.info("feed_database_back")
                away = False
            self._looked_at = asyncio.get_running_loop().time()
            # However many hints come meanwhile, they are one look.
            await asyncio.sleep(0.0 if more else limits.gap)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(limits.poll - limits.gap):
                        await self._hinted.wait()

    async def _look(self) -> bool:
        """Read what is new, and wake whom it may concern. True when there is more already."""
        limits, ring = self.limits, self._ring
        if ring is None:
            # Begun a page back, so that those who were only just away need no query of their own.
            newest, entries = await self._tail_lane.run(_read_latest, limits.page)
            floor = entries[0].seq - 1 if entries else newest
            ring = Ring(floor, rows=limits.ring_rows, chars=limits.ring_chars)
            more = False
        else:
            try:
                entries, upto, newest = await self._tail_lane.run(_read_entries, ring.newest, Wanted(), limits.page)
            except FeedGoneError as gone:
                # The feed was pruned past us or begun anew: each client finds out for its own place.
                log.warning("feed_begun_anew", reason=str(gone))
                self._ring = None
                self._portions.clear()
                return True
            more, newest = upto < newest, upto
            if newest == ring.newest:
                return False
        ring.extend(entries, newest)
        self._ring = ring
        self._portions.clear()
        news, self._news = self._news, asyncio.Event()
        news.set()
        return more

    async def _check_passes(self) -> None:
        """Every heartbeat: end the seats of those who may no longer be here. One look for all of them."""
        while True:
            await asyncio.sleep(self.limits.heartbeat)
            try:
                ended = await self._tail_lane.run(no_longer_valid, {seat.shown for seat in self._seats})
            except Error:
                continue  # the tail says it
            for seat in self._seats:
                if seat.shown in ended:
                    seat.end(for_good=True)

    async def _take_census(self) -> None:
        """Every few seconds: say how many clients there are and how far behind, where any `/metrics` finds it."""
        # Of this run alone, for its end and the next one's beginning may cross.
        name = f"{platform.node()[:200]}:{os.getpid()}:{secrets.token_hex(4)}"
        try:
            while True:
                with suppress(Error):  # the tail says it
                    await self._census_lane.run(save_feed_server, name, len(self._seats), self.lag)
                await asyncio.sleep(self.limits.census)
        finally:
            # The last client is not kept waiting for a database that is: the row is soon too old to count.
            with suppress(Error, TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._census_lane.run(forget_feed_server, name)


def _read_entries(after: int, wanted: Wanted, limit: int) -> tuple[list[Entry], int, int]:
    """The changes after that number, how far that looked, and the newest number. Raises `FeedGoneError`."""
    page = changes_after(after, limit, kinds=wanted.kinds, keys=wanted.skill_ids)
    return entries_of(page.changes), page.next_after, page.newest


def _read_portion(after: int, wanted: Wanted, limit: int) -> Portion:
    entries, upto, _ = _read_entries(after, wanted, limit)
    return portion_of(entries, wanted, upto)


def _read_latest(limit: int) -> tuple[int, list[Entry]]:
    """The newest number, and the last changes up to it, `limit` at most and as far as they are kept."""
    newest = newest_seq()
    try:
        page = changes_after(max(newest - limit, 0), limit)
    except FeedGoneError:
        # A short feed that was pruned: whoever needs those few reads them.
        return newest, []
    return page.next_after, entries_of(page.changes)
