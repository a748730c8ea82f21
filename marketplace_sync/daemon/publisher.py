"""Write the daemon's metrics into the database, under the lease, where every web process finds them.

So no port is opened and no firewall changed, wherever the daemon runs. Every web process that is scraped shows the same
figures, and the lease shows whether they are still current.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from math import inf

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.metrics import Metrics
from marketplace_sync.daemon.session import Session
from marketplace_sync.mirror.metrics import catalogue_size, decided_since, save_daemon_metrics
from marketplace_sync.upstream.market import MarketClient

# Prometheus scrapes every 15 s by default.
EVERY_SECONDS = 5.0
# Counting 100,000 skills takes the database about 20 ms.
COUNT_EVERY_SECONDS = 15.0


class Publisher:
    """Collect the figures that nothing publishes, and write all metrics every few seconds."""

    def __init__(
        self,
        metrics: Metrics,
        session: Session,
        market: MarketClient,
        config: SyncConfig,
        totals: Counter[str],
        clock: Callable[[], float],
    ) -> None:
        self._metrics = metrics
        self._session = session
        self._market = market
        self._totals = totals
        self._clock = clock
        self._received = totals["received"]
        self._retries = session.database.retries
        self._counted_at = -inf
        self._decided_until: datetime | None = None
        metrics.queue_limit_bytes.set(config.queue_max_bytes)
        metrics.sync_interval.set(config.sync_interval_seconds)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._gather()
            await self._session.database.control(save_daemon_metrics, self._session.lease, self._metrics.render)
            await asyncio.sleep(EVERY_SECONDS)

    async def _gather(self) -> None:
        metrics = self._metrics
        self._decided_until, outcomes = await self._session.database.control(decided_since, self._decided_until)
        metrics.decided(outcomes)
        if self._clock() - self._counted_at >= COUNT_EVERY_SECONDS:
            skills, categories = await self._session.database.control(catalogue_size)
            self._counted_at = self._clock()
            metrics.skills.set(skills)
            metrics.categories.set(categories)
        received, retries = self._totals["received"], self._session.database.retries
        metrics.received.inc(received - self._received)
        metrics.database_retries.inc(retries - self._retries)
        self._received, self._retries = received, retries
        metrics.queue_items.set(self._session.queue.waiting)
        metrics.queue_bytes.set(self._session.queue.waiting_bytes)
        left = self._market.budget.left(self._clock())
        metrics.budget_left.set(inf if left is None else left)
        metrics.settle()
