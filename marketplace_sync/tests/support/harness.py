"""A real daemon against the simulated marketplace over real sockets, in one event loop, for tests."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from django.db.models import F

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.daemon.core import Daemon
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.owning import holder_name, wait_for_lease
from marketplace_sync.daemon.verify import Verifier
from marketplace_sync.mirror.commands import submit_command
from marketplace_sync.mirror.compare import Difference
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, LeaseRow, Skill
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.upstream.market import MarketClient

T = TypeVar("T")

TOKEN = "11111111-2222-4333-8444-555555555555"
# A test that waits this long for something has found a fault.
PATIENCE = 90.0
# An hour that lasts a second: everything by its real rules, in less time.
QUICK: dict[str, Any] = {
    "connect_timeout": 2.0, "healthy_after": 0.5, "heartbeat_interval": 0.5, "pong_timeout": 0.3,
    "reconnect_delays": (0.05, 0.1, 0.2), "reconnect_jitter": 0.0, "fallback_seconds": 1.0, "api_timeout": 5.0,
    "requests_per_minute": 0, "rate_limit": 0.0,
}  # fmt: skip


def quick_config(server: SimulatorServer, **changes: Any) -> SyncConfig:
    """Return settings for `server` with quick clocks; `changes` by field name."""
    config = SyncConfig(api_url=server.api_url, ws_url=server.ws_url, api_token=Secret(server.token))
    return replace(config, **{**QUICK, **changes})


def skill(number: int, **fields: Any) -> dict[str, Any]:
    """Return a plausible skill, as the marketplace would list it."""
    return {
        "skill_id": f"skill-{number:05}", "name": f"Skill {number}", "description": "Does a thing.",
        "version": "1.0.0", "code": f"def skill_{number}(): ...", "command": "python", "python_packages": [],
        "npm_packages": [], "tags": ["test"], "metadata": {"author": "Ada"}, "category": "automation",
        "average_rating": 4.5, "rating_count": 2, "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-15T10:30:00Z",
    } | fields  # fmt: skip


def age_the_lease(seconds: float) -> None:
    """As if this much time had passed since the daemon renewed its lease for the last time."""
    LeaseRow.objects.update(renewed_at=F("renewed_at") - timedelta(seconds=seconds))


CATEGORY = {
    "name": "automation", "description": "Things that run without a person.", "skill_count": 3, "icon_url": None,
    "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


@asynccontextmanager
async def marketplace(skills: int = 25, **options: Any) -> AsyncIterator[SimulatorServer]:
    """Run a marketplace with that many skills on a free port. It has no limits unless `options` set them."""
    limits = {"requests_per_minute": 0, "connects_per_minute": 0, "token": TOKEN}
    market = Marketplace([skill(number) for number in range(skills)], [CATEGORY])
    async with SimulatorServer(market, **{**limits, **options}) as server:
        yield server


class Mirror:
    """A daemon at work, and questions to its database."""

    def __init__(self, server: SimulatorServer, config: SyncConfig, database: Database) -> None:
        self.server = server
        self.config = config
        self.database = database
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def start(self, *, stream_wanted: bool = True) -> None:
        lease = await wait_for_lease(self.database, holder_name(), self.stop)
        assert lease is not None
        daemon = Daemon(self.config, stream_wanted=stream_wanted)
        self.task = asyncio.create_task(daemon.run(self.database, lease, self.stop))

    async def ask(self, question: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function that uses the database."""
        return await self.database.control(question, *args, **kwargs)

    async def status(self) -> Status:
        return await self.ask(status)

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until `true()`; fails with `what` after `PATIENCE`, and with the daemon's own fault if it died."""
        deadline = time.monotonic() + PATIENCE
        while not await true():
            if self.task is not None and self.task.done():
                await self.task
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain until {what}; {await self.status()}"
            await asyncio.sleep(0.01)

    async def until_state(self, *states: str) -> None:
        async def reached() -> bool:
            return (await self.status()).row.state in states

        await self.until(reached, f"the state is {' or '.join(states)}")

    async def until_db(self, question: Callable[[], bool], what: str) -> None:
        await self.until(lambda: self.ask(question), what)

    async def command(self, action: Command.Action, **args: object) -> Command:
        """Ask the daemon for something and wait for its answer."""
        asked = await self.ask(submit_command, action, by="command line", args=args)

        async def answered() -> bool:
            await self.ask(asked.refresh_from_db)
            return asked.finished_at is not None

        await self.until(answered, f"{action} is answered")
        return asked

    async def difference(self) -> Difference:
        """How the mirror differs from the marketplace, without faults on the way."""
        self.server.faults.clear()
        async with MarketClient(self.config) as market:
            return await Verifier(market, self.database, page_size=100, max_pages=1000).difference()

    async def until_in_sync(self) -> None:
        """Wait until the mirror is in sync with the marketplace."""

        async def in_sync() -> bool:
            return (await self.difference()).in_sync

        await self.until(in_sync, "the mirror is in sync")

    async def until_it_follows(self) -> None:
        """Wait until a skill that the marketplace announces from now on is in the mirror."""
        self.server.market.put_skill(skill(100))
        await self.until_db(Skill.objects.filter(skill_id="skill-00100").exists, "the change is here")

    async def end(self) -> None:
        """Stop the daemon cleanly; what ended it otherwise is raised."""
        self.stop.set()
        if self.task is not None:
            await self.task


@asynccontextmanager
async def mirror(
    server: SimulatorServer, *, stream_wanted: bool = True, start: bool = True, **changes: Any
) -> AsyncIterator[Mirror]:
    """Yield a running daemon for `server`; stopped cleanly at the end unless the test ended it."""
    database = Database()
    running = Mirror(server, quick_config(server, **changes), database)
    try:
        if start:
            await running.start(stream_wanted=stream_wanted)
        yield running
        if running.task is not None and not running.stop.is_set():
            await running.end()
    finally:
        if running.task is not None and not running.task.done():
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)
        await database.close()
