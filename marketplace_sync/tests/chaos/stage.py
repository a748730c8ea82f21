"""What one run is played on: the marketplace, the networks, the daemons, and what is known of them at any moment."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.chaos.database import DAEMONS, Scratch
from marketplace_sync.tests.chaos.proxy import Proxy
from marketplace_sync.tests.chaos.script import SLOTS

# A token that could not turn up by chance.
TOKEN = "7d1f0c9e-chaos-4c2a-9b57-2f6e8d1a0b3c"
# An hour that lasts a second; everything else by its real rules.
QUICK: Mapping[str, object] = {
    "ATOM_SAAS_API_TOKEN": TOKEN, "ATOM_SAAS_WS_CONNECT_TIMEOUT": 2, "ATOM_SAAS_WS_HEALTHY_AFTER": 0.5,
    "ATOM_SAAS_WS_HEARTBEAT_INTERVAL": 1, "ATOM_SAAS_WS_PONG_TIMEOUT": 1,
    "ATOM_SAAS_WS_RECONNECT_DELAYS": "0.05,0.1,0.2", "ATOM_SAAS_WS_RECONNECT_JITTER": 0,
    "ATOM_SAAS_WS_RECONNECT_ATTEMPTS": 6, "ATOM_SAAS_WS_FALLBACK_SECONDS": 1, "ATOM_SAAS_API_TIMEOUT_SECONDS": 3,
    "ATOM_SAAS_API_REQUESTS_PER_MINUTE": 0,
}  # fmt: skip


class Nursery:
    """The process that daemons are forked from; see `nursery`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: asyncio.subprocess.Process | None = None
        self._pids: asyncio.Queue[int] = asyncio.Queue()
        self.statuses: dict[int, int] = {}

    async def start(self) -> None:
        environment = {**os.environ, "DATABASE_URL": self._url, "PGAPPNAME": DAEMONS}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "marketplace_sync.tests.chaos.nursery", env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._hearing = asyncio.create_task(self._hear(), name="nursery")

    async def stop(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._hearing

    async def fork(self, order: Mapping[str, Any]) -> int:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self._pids.get()

    async def _hear(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            match json.loads(line):
                case {"pid": pid}:
                    self._pids.put_nowait(pid)
                case {"ended": pid, "status": status}:
                    self.statuses[pid] = status


@dataclass(slots=True)
class Daemon:
    """One daemon process. `doomed`: why its end is ours; "" while nobody has asked for it."""

    slot: str
    pid: int
    output: Path
    began: float
    doomed: str = ""
    paused: bool = False
    asked_to_stop_at: float | None = None
    ended_at: float | None = None
    status: int | None = None


@dataclass(slots=True)
class Facts:
    """What is so at this moment; times are of `time.monotonic`, `None`: it is not."""

    unattended_since: float | None = None  # no daemon process runs
    streamless_since: float | None = None  # the marketplace has no stream open that could carry anything
    database_trouble_until: float = 0.0


@dataclass(slots=True)
class Stage:
    """All of one run. `faults` are violations: texts of what must not be and was."""

    scratch: Scratch
    nursery: Nursery
    server: SimulatorServer
    nets: Mapping[str, Proxy]
    database_nets: Mapping[str, Proxy]
    settings: Mapping[str, object]
    folder: Path
    facts: Facts = field(default_factory=Facts)
    daemons: list[Daemon] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)  # slots that a supervisor keeps a daemon in
    struck: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)  # skills that truly went, by id
    violations: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def market(self) -> Marketplace:
        return self.server.market

    def running(self, slot: str) -> Daemon | None:
        """Return the daemon of that slot, paused or not."""
        return next((one for one in self.daemons if one.slot == slot and one.status is None), None)

    def violated(self, what: str) -> None:
        if what not in self.violations and len(self.violations) < 50:
            self.violations.append(what)

    async def start(self, slot: str) -> None:
        """Start a daemon in that slot, if none runs there."""
        self.wanted.add(slot)
        async with self._starting:
            if self.running(slot) is None:
                await self._fork(slot)

    async def _fork(self, slot: str) -> None:
        output = self.folder / f"{len(self.daemons)}-{slot}.log"
        pid = await self.nursery.fork({
            "output": str(output), "arguments": ["runsync"],
            "database_port": self.database_nets[slot].port if self.scratch.postgres else 0,
            "settings": {**QUICK, **self.settings,
                         "ATOM_SAAS_API_URL": f"http://127.0.0.1:{self.nets[slot].port}"},
        })  # fmt: skip
        self.daemons.append(Daemon(slot, pid, output, time.monotonic()))

    def send(self, daemon: Daemon, number: signal.Signals) -> None:
        if daemon.status is None and daemon.pid not in self.nursery.statuses:
            os.kill(daemon.pid, number)

    def look(self) -> None:
        """Note who has ended, and bring the facts up to date. Quick: it is called many times per second."""
        now = time.monotonic()
        for daemon in self.daemons:
            if daemon.status is None and daemon.pid in self.nursery.statuses:
                daemon.status, daemon.ended_at = self.nursery.statuses[daemon.pid], now
        facts = self.facts
        attended = any(daemon.status is None and not daemon.paused for daemon in self.daemons)
        facts.unattended_since = None if attended else facts.unattended_since or now
        streaming = self.server.clients and any(net.carries for net in self.nets.values())
        facts.streamless_since = None if streaming else facts.streamless_since or now
        if not all(net.carries for net in self.database_nets.values()):
            self.database_trouble(0)

    def database_trouble(self, seconds: float) -> None:
        """Note that the database is in trouble for `seconds` from now."""
        self.facts.database_trouble_until = max(self.facts.database_trouble_until, time.monotonic() + seconds)

    async def supervise(self) -> None:
        """Start again what ended without being asked to, as a supervisor would."""
        self.look()
        for slot in SLOTS:
            if slot in self.wanted and self.running(slot) is None and not self._starting.locked():
                self.notes["restarts by the supervisor"] += 1
                await self.start(slot)


def counted(faults: FaultSet, struck: Counter[str]) -> None:
    """Count each time that one of the marketplace's faults has an effect."""
    take, is_permanent = faults.take, faults.is_permanent

    def counting_take(name: str, subject: str = "") -> Mapping[str, Any] | None:
        found = take(name, subject)
        if found is not None:
            struck[name] += 1
        return found

    def counting_is_permanent(name: str) -> bool:
        found = is_permanent(name)
        if found:
            struck[name] += 1
        return found

    faults.take = counting_take  # type: ignore[method-assign]
    faults.is_permanent = counting_is_permanent  # type: ignore[method-assign]


def remembering_deaths(market: Marketplace, deaths: Counter[str]) -> None:
    """Count each skill that is really removed."""
    delete: Callable[..., str] = market.delete_skill

    def counting_delete(skill_id: str, *, announce: bool = True) -> str:
        deleted_at = delete(skill_id, announce=announce)
        deaths[skill_id] += 1
        return deleted_at

    market.delete_skill = counting_delete  # type: ignore[method-assign]
