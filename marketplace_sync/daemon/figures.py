"""What the charts show: how late stream messages are committed, and how large the mirror is, minute by minute."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from marketplace_sync.daemon.database import Database
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


class Figures:
    """Counts the lag of each stream message that changed something, until `take` hands the counts over.

    The lag is our time at the commit minus the marketplace's own time of the change. Where the server's clock is off by
    2 s or more (`server_offset`: it minus ours, as the handshake told it) that is taken out, and the lag is then right
    within half a second; an hour off is no hour's lag. Without a `Date` at the handshake nobody knows: a clock behind
    ours shows as that much lag, one ahead as none. What tells of a time more than a day ago (a recorded history, an
    import) says nothing about how quick we are, and is not counted; nor is a change without a time.
    """

    def __init__(self, *, server_offset: Callable[[], timedelta], wall: Callable[[], datetime]) -> None:
        self._server_offset = server_offset
        self._wall = wall
        self._lags: Counter[int] = Counter()  # by bucket, so it does not grow with the messages

    def committed(self, batch: Committed) -> None:
        """Measure a batch of stream messages, just committed."""
        now = server_time(self._wall(), self._server_offset())
        day_ago = stamp_of(now - timedelta(seconds=MOST_SECONDS))
        for item, effect in zip(batch.items, batch.effects, strict=True):
            # No stream message is a `SkillAbsent`, and of a `RefusedInput` nothing is applied.
            if effect in _APPLIED and isinstance(item, Arrived):
                stamp = reported_at(item.event)  # type: ignore[arg-type]
                if stamp is not None and stamp >= day_ago:
                    self._lags[bucket_of((now - moment_of(stamp)).total_seconds())] += 1

    def take(self) -> Mapping[int, int]:
        """What was counted since the last time, by bucket of `engine.latency`."""
        taken, self._lags = self._lags, Counter()
        return taken

    async def run(self, database: Database, lease: Lease) -> None:
        """Count the mirror every few seconds, until cancelled."""
        while True:
            await database.control(count_minute, lease)
            await asyncio.sleep(_COUNT_EVERY)
