"""Check all the time whether the status is true and a subscriber can continue to read the feed."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

from django.db import DatabaseError, connections

from marketplace_sync.live.feed import Change, FeedGoneError, changes_after
from marketplace_sync.mirror import status as status_module
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import SyncRun
from marketplace_sync.tests.chaos.stage import Facts, Stage
from marketplace_sync.tests.support.truth import FeedCopy

EVERY_SECONDS = 0.1
# From the stream's end until the row shows it: 1 s until the next ping, 1 s for its pong, 1 s for the close and 1 s
# until the row is written. The rest is for a slow machine.
STREAM_SHOWN_WITHIN = 5.0
# The clocks of the database, of this process and of the scheduler.
_MARGIN = 0.3
# The daemon's clock has the time of the stream's opening, the database's that of a full sync; SQLite's counts ms.
_CLOCKS_APART = timedelta(milliseconds=5)
_LOOKS_ALIVE = ("catching_up", "live")
_ENDED_WELL = ("done", "held", "approved", "dismissed", "superseded")


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample. `proven`: a full sync that began after the stream opened has ended; `None`: not checked."""

    status: Status
    changes: Sequence[Change]
    newest: int
    proven: bool | None


class Eyes:
    """Reads the status, and reads the feed like a subscriber that keeps a copy of the mirror."""

    def __init__(self, stage: Stage, thread: ThreadPoolExecutor) -> None:
        self._stage = stage
        self._thread = thread
        self.copy = FeedCopy()
        self.after = 0
        self.samples = 0
        self.slowest_dead = 0.0  # the longest time until a daemon's end was shown, seconds
        self.slowest_stream = 0.0
        self._newest = 0
        self._received = 0
        self._last: Status | None = None

    @property
    def last(self) -> Status | None:
        return self._last

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            began = time.monotonic()
            await self.sample()
            late = time.monotonic() - began - EVERY_SECONDS
            await asyncio.sleep(max(0.02, -late))

    async def sample(self) -> None:
        """Take one sample, and note what is wrong in it."""
        facts = self._facts()
        began = time.monotonic()
        try:
            seen = await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
        except FeedGoneError as gone:
            self._stage.violated(f"the feed broke off for a subscriber: {gone}")
            return
        except DatabaseError as error:
            if began > facts.database_trouble_until + 1:
                self._stage.violated(f"the mirror could not be read though its database was in order: {error}")
            await asyncio.get_running_loop().run_in_executor(self._thread, connections.close_all)
            return
        self.samples += 1
        self._judge_feed(seen)
        # A fact counts only if it was true before and after the sample: then it was true when the database was read.
        after = self._facts()
        if after.unattended_since != facts.unattended_since:
            facts.unattended_since = None
        if after.streamless_since != facts.streamless_since:
            facts.streamless_since = None
        facts.database_trouble_until = after.database_trouble_until
        self._judge_status(seen.status, facts, began)
        if seen.proven is False:
            self._stage.violated(f"live was shown before a full sync had caught up ({_shown(seen.status)})")
        self._last = seen.status

    def _facts(self) -> Facts:
        self._stage.look()
        return replace(self._stage.facts)

    def _look(self) -> Seen:
        now = status()
        page = changes_after(self.after, 1_000)
        proven = None
        if now.row.state == "live":
            opened = now.row.last_connected_at - _CLOCKS_APART
            proven = SyncRun.objects.filter(started_at__gte=opened, state__in=_ENDED_WELL).exists()
        return Seen(now, page.changes, page.newest, proven)

    def _judge_feed(self, seen: Seen) -> None:
        if seen.newest < self._newest:
            self._stage.violated(f"the newest number fell from {self._newest} to {seen.newest}")
        self._newest = max(self._newest, seen.newest)
        for change in seen.changes:
            if change.seq != self.after + 1:
                self._stage.violated(f"the subscriber saw {change.seq} after {self.after}")
            self.after = change.seq
            if problem := self.copy.take(change.kind, change.key, change.data):
                self._stage.violated(f"number {change.seq}: {problem}")

    def _judge_status(self, shown: Status, facts: Facts, began: float) -> None:
        row = shown.row
        if row.connected != (row.state in _LOOKS_ALIVE):
            self._stage.violated(f"connected and state disagree: {_shown(shown)}")
        if not shown.alive and row.state != "not_running":
            self._stage.violated(f"not alive, and yet {_shown(shown)}")
        if row.received < self._received:
            self._stage.violated(f"the total of received messages fell from {self._received} to {row.received}")
        self._received = row.received
        if facts.unattended_since is not None and shown.alive:
            # What a dead daemon sent may still arrive from a stalled network after its end.
            since = began - max(facts.unattended_since, facts.database_trouble_until)
            self.slowest_dead = max(self.slowest_dead, since)
            if since > status_module.DEAD_AFTER_SECONDS + _MARGIN:
                self._stage.violated(f"{since:.1f} s after the end of every daemon: {_shown(shown)}")
        if facts.streamless_since is not None and row.connected and began > facts.database_trouble_until + 4:
            since = began - facts.streamless_since
            self.slowest_stream = max(self.slowest_stream, since)
            if since > STREAM_SHOWN_WITHIN:
                self._stage.violated(f"{since:.1f} s without any stream: {_shown(shown)}")


def _shown(shown: Status) -> str:
    row = shown.row
    return (
        f"state {row.state}, connected {row.connected}, alive {shown.alive}, daemon {shown.daemon},"
        f" last connected {row.last_connected_at}"
    )
