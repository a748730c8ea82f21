"""Measure what the charts show: how late stream messages are committed, and how large the mirror is, per minute."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.writer import Committed
from marketplace_sync.engine.latency import MOST_SECONDS, bucket_of
from marketplace_sync.mirror.arrived import Arrived, Effect
from marketplace_sync.mirror.figures import count_minute
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.protocol.events import reported_at
from marketplace_sync.protocol.stamps import moment_of, stamp_of
from marketplace_sync.upstream.clock import server_time

_COUNT_EVERY = 5.0
_APPLIED = (Effect.CREATED, Effect.UPDATED, Effect.REMOVED)


class Figures(DaemonObserver):
    """Measure the lag of each stream message that changed something; count lags until `take` returns the counts.

    The lag is our time at the commit minus the marketplace's own time of the change. If the server's clock is off by
    2 s or more, as seen at the handshake, that is taken out, and the lag is then right within half a second: a clock
    that is off by an hour shows no lag of an hour. Without a `Date` at the handshake a clock behind ours shows as that
    much lag, one ahead as none. A change dated more than a day ago (a recorded history, an import) does not show
    how fast the daemon is and is not counted, nor is a change without a time.

    `observers` are notified of the lags of each batch.
    """

    def __init__(self, observers: DaemonObserver, wall: Callable[[], datetime]) -> None:
        self._observers = observers
        self._wall = wall
        self._server_offset = timedelta(0)
        self._counts: Counter[int] = Counter()  # by bucket, so the size does not grow with the messages

    def stream_opened(self, server_offset: timedelta) -> None:
        self._server_offset = server_offset

    def committed(self, batch: Committed) -> None:
        """Measure a batch of stream messages that was just committed."""
        lags = list(self._lags(batch))
        if lags:
            self._counts.update(map(bucket_of, lags))
            self._observers.lags_measured(lags)

    def _lags(self, batch: Committed) -> Iterator[float]:
        """Yield the seconds from the change to now, for each message that changed something."""
        now = server_time(self._wall(), self._server_offset)
        day_ago = stamp_of(now - timedelta(seconds=MOST_SECONDS))
        for item, effect in zip(batch.items, batch.effects, strict=True):
            # No stream message is a `SkillAbsent`, and no `RefusedInput` is ever applied.
            if effect in _APPLIED and isinstance(item, Arrived):
                stamp = reported_at(item.event)  # type: ignore[arg-type]
                if stamp is not None and stamp >= day_ago:
                    yield max((now - moment_of(stamp)).total_seconds(), 0.0)

    def take(self) -> Mapping[int, int]:
        """Return the counts since the last call, by bucket of `engine.latency`."""
        taken, self._counts = self._counts, Counter()
        return taken

    async def run(self, database: Database, lease: Lease) -> None:
        """Count the rows of the mirror every few seconds, until cancelled."""
        while True:
            await database.control(count_minute, lease)
            await asyncio.sleep(_COUNT_EVERY)
