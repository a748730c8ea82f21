"""Writes the daemon's metrics where every web process finds them: into the database, under the lease.

No port is opened and no firewall asked, wherever the daemon runs; whichever web process is scraped tells the same;
and the lease says whether what is written there is still true.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from math import inf

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.metrics import Metrics
from marketplace_sync.daemon.write_queue import WriteQueue
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.metrics import catalogue_size, decided_since, save_daemon_metrics
from marketplace_sync.upstream.market import MarketClient

# Prometheus looks every 15 s by habit.
EVERY_SECONDS = 5.0
# Counting 100,000 skills takes some 20 ms of the database.
COUNT_EVERY_SECONDS = 15.0


class Publisher:
    """Gathers what others hold and nobody tells, and writes all of it every few seconds."""

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        lease: Lease,
        queue: WriteQueue,
        market: MarketClient,
        config: SyncConfig,
        totals: Counter[str],
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._lease = lease
        self._queue = queue
        self._market = market
        self._totals = totals
        self._clock = clock
        self._received = totals["received"]
        self._retries = database.retries
        self._counted_at = -inf
        self._decided_until: datetime | None = None
        metrics.queue_limit_bytes.set(config.queue_max_bytes)
        metrics.sync_interval.set(config.sync_interval_seconds)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._gather()
            await self._database.control(save_daemon_metrics, self._lease, self._metrics.render)
            await asyncio.sleep(EVERY_SECONDS)

    async def _gather(self) -> None:
        metrics = self._metrics
        self._decided_until, outcomes = await self._database.control(decided_since, self._decided_until)
        metrics.decided(outcomes)
        if self._clock() - self._counted_at >= COUNT_EVERY_SECONDS:
            skills, categories = await self._database.control(catalogue_size)
            self._counted_at = self._clock()
            metrics.skills.set(skills)
            metrics.categories.set(categories)
        received, retries = self._totals["received"], self._database.retries
        metrics.received.inc(received - self._received)
        metrics.database_retries.inc(retries - self._retries)
        self._received, self._retries = received, retries
        metrics.queue_items.set(self._queue.waiting)
        metrics.queue_bytes.set(self._queue.waiting_bytes)
        left = self._market.budget.left(self._clock())
        metrics.budget_left.set(inf if left is None else left)
        metrics.settle()
