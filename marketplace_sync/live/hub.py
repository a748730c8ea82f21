"""The only reader of the feed in a web process: it finds new changes, once for all clients, and wakes them.

It runs while a client is connected, and keeps one database connection open meanwhile. Changes are encoded once and
kept in bounded memory, from which each client takes those after its own place. There is no queue per client, so a
client that does not read occupies no memory but its place.
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

from marketplace_sync.live.credentials import Credential, no_longer_valid
from marketplace_sync.live.database_thread import DatabaseThread
from marketplace_sync.live.feed import FeedGoneError, changes_after, newest_seq
from marketplace_sync.live.hints import listen
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.live.messages import ChangesMessage, EncodedChange, FeedFilter, encode_changes, next_message
from marketplace_sync.live.recent_changes import RecentChanges
from marketplace_sync.mirror.metrics import forget_feed_server, save_feed_server

log = structlog.get_logger(__name__)

# How many places keep their message for other clients. Unfiltered clients are nearly always all at one place.
_SHARED_MESSAGES = 16
_FORGET_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Subscriber:
    """One connected client. `ended` is set when it has to leave: true if its credential ended, false if the hub failed.

    `seq`: the client has been sent everything up to this number; `None` before the first message.
    """

    credential: Credential
    seq: int | None = None
    ended: "asyncio.Future[bool]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, *, for_good: bool) -> None:
        if not self.ended.done():
            self.ended.set_result(for_good)


class Hub:
    """One per process. It belongs to the event loop of its subscribers."""

    def __init__(self, limits: SubscriptionLimits | None = None) -> None:
        self.limits = limits or SubscriptionLimits()
        # Clients authenticate here, and read pages while they catch up. The reader has its own: no client delays it.
        self.client_thread = DatabaseThread("feed-clients")
        self._reader_thread = DatabaseThread("feed-reader", keep_open=True)
        # The metrics are written, so they may wait for another writer.
        self._metrics_thread = DatabaseThread("feed-metrics")
        self._subscribers: set[Subscriber] = set()
        self._recent: RecentChanges | None = None
        self._grown = asyncio.Event()  # replaced whenever it is set, so that each growth wakes every client once
        self._hinted = asyncio.Event()
        self._messages: dict[int, ChangesMessage] = {}  # by place; shared by all unfiltered clients at that place
        self._read_at = 0.0
        self._running: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Return whether the feed is being read."""
        return self._running is not None

    @property
    def subscribers(self) -> int:
        """Return the number of connected clients."""
        return len(self._subscribers)

    @property
    def lag(self) -> int:
        """Return by how many changes the slowest client is behind the newest change read."""
        newest = self._recent.newest if self._recent is not None else 0
        places = [subscriber.seq for subscriber in self._subscribers if subscriber.seq is not None]
        return max((newest - seq for seq in places if seq < newest), default=0)

    @property
    def read_recently(self) -> bool:
        """Return whether the feed was read within the last heartbeat. If not, "nothing new" would be a guess."""
        return asyncio.get_running_loop().time() - self._read_at < self.limits.heartbeat

    @asynccontextmanager
    async def subscribe(self, credential: Credential) -> AsyncIterator[Subscriber]:
        """Count a client as connected while the body runs. The first one starts the hub, the last one ends it."""
        subscriber = Subscriber(credential)
        self._subscribers.add(subscriber)
        if self._running is None:
            self._recent = None
            self._grown = asyncio.Event()
            self._hinted = asyncio.Event()
            self._running = asyncio.create_task(self._run(), name="feed hub")
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            if not self._subscribers and self._running is not None:
                running, self._running = self._running, None
                running.cancel()
                await asyncio.wait([running])

    async def newest(self) -> int:
        """Return the newest number read. Wait for the first read."""
        while self._recent is None:
            await self._grown.wait()
        return self._recent.newest

    async def after(self, seq: int, feed_filter: FeedFilter) -> ChangesMessage:
        """Return the next message for a client at `seq`.

        Raise `FeedGoneError`, and what the database raises.
        """
        if seq == await self.newest():
            return ChangesMessage("", seq)
        recent = self._recent
        changes = recent.after(seq) if recent is not None and seq < recent.newest else None
        if recent is None or changes is None:
            # Older than the recent changes; or ahead of them, where another process may have taken the client.
            return await self.client_thread.run(_read_message, seq, feed_filter, self.limits.page)
        if not feed_filter.admits_all:
            return next_message(changes, feed_filter, recent.newest)
        message = self._messages.get(seq) or next_message(changes, feed_filter, recent.newest)
        if len(self._messages) < _SHARED_MESSAGES:
            self._messages[seq] = message
        return message

    async def grown_beyond(self, seq: int) -> None:
        """Wait until a change after `seq` has been read."""
        while self._recent is None or self._recent.newest <= seq:
            await self._grown.wait()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_feed(), name="feed reader")
                tasks.create_task(self._check_credentials(), name="feed credentials")
                tasks.create_task(self._save_metrics(), name="feed metrics")
                tasks.create_task(listen(self._hinted.set), name="feed hints")
        except Exception:  # the top of a task: the clients are disconnected, and reconnect to a new run
            log.exception("feed_hub_failed")
        finally:
            if self._running is asyncio.current_task():
                self._running = None
                for subscriber in self._subscribers:
                    subscriber.end(for_good=False)
                self._subscribers.clear()
            await self._reader_thread.close_connection()

    async def _read_feed(self) -> None:
        """Read new changes at every hint, and every `poll` seconds without one."""
        limits = self.limits
        unavailable = False
        while True:
            self._hinted.clear()
            try:
                more = await self._read_once()
            except Error as error:
                if not unavailable:
                    log.warning("feed_database_away", reason=str(error).strip())
                unavailable = True
                await asyncio.sleep(limits.retry)
                continue
            if unavailable:
                log.info("feed_database_back")
                unavailable = False
            self._read_at = asyncio.get_running_loop().time()
            # All hints that come during this pause lead to one read.
            await asyncio.sleep(0.0 if more else limits.gap)
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(limits.poll - limits.gap):
                        await self._hinted.wait()

    async def _read_once(self) -> bool:
        """Read a page of new changes and wake the clients. Return whether there are more already."""
        limits, recent = self.limits, self._recent
        if recent is None:
            # Start one page back: a client that was away briefly then needs no query of its own.
            newest, changes = await self._reader_thread.run(_read_latest, limits.page)
            floor = changes[0].seq - 1 if changes else newest
            recent = RecentChanges(floor, rows=limits.recent_rows, chars=limits.recent_chars)
            more = False
        else:
            try:
                changes, upto, newest = await self._reader_thread.run(
                    _read_changes, recent.newest, FeedFilter(), limits.page
                )
            except FeedGoneError as error:
                # The feed was pruned past this place, or restarted: each client finds out for its own place.
                log.warning("feed_restarted", reason=str(error))
                self._recent = None
                self._messages.clear()
                return True
            more, newest = upto < newest, upto
            if newest == recent.newest:
                return False
        recent.extend(changes, newest)
        self._recent = recent
        self._messages.clear()
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
        return more

    async def _check_credentials(self) -> None:
        """End the subscriptions whose credential is no longer valid. One check per heartbeat covers all clients."""
        while True:
            await asyncio.sleep(self.limits.heartbeat)
            try:
                credentials = {subscriber.credential for subscriber in self._subscribers}
                ended = await self._reader_thread.run(no_longer_valid, credentials)
            except Error:
                continue  # the reader logs it
            for subscriber in self._subscribers:
                if subscriber.credential in ended:
                    subscriber.end(for_good=True)

    async def _save_metrics(self) -> None:
        """Save every few seconds how many clients there are and how far behind, where any `/metrics` finds it."""
        # Unique per run: the end of one run and the start of the next may overlap.
        name = f"{platform.node()[:200]}:{os.getpid()}:{secrets.token_hex(4)}"
        try:
            while True:
                with suppress(Error):  # the reader logs it
                    await self._metrics_thread.run(save_feed_server, name, len(self._subscribers), self.lag)
                await asyncio.sleep(self.limits.metrics_interval)
        finally:
            # The last client must not wait for a blocked database; without this the row soon is too old to count.
            with suppress(Error, TimeoutError):
                async with asyncio.timeout(_FORGET_SECONDS):
                    await self._metrics_thread.run(forget_feed_server, name)


def _read_changes(after: int, feed_filter: FeedFilter, limit: int) -> tuple[list[EncodedChange], int, int]:
    """Return the changes after that number, how far the read reached, and the newest number. Raise `FeedGoneError`."""
    page = changes_after(after, limit, kinds=feed_filter.kinds, keys=feed_filter.skill_ids)
    return encode_changes(page.changes), page.next_after, page.newest


def _read_message(after: int, feed_filter: FeedFilter, limit: int) -> ChangesMessage:
    changes, upto, _ = _read_changes(after, feed_filter, limit)
    return next_message(changes, feed_filter, upto)


def _read_latest(limit: int) -> tuple[int, list[EncodedChange]]:
    """Return the newest number, and at most `limit` changes that lead up to it."""
    newest = newest_seq()
    try:
        page = changes_after(max(newest - limit, 0), limit)
    except FeedGoneError:
        # Even of these few some were pruned: a client that needs the others reads them.
        return newest, []
    return page.next_after, encode_changes(page.changes)
