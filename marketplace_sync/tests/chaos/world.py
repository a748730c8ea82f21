"""Run scripts on a temporary database: set the stage, play, wait until the mirror has settled, judge."""

import asyncio
import contextlib
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from django.db import connections

from marketplace_sync.models import Command
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.chaos.database import Scratch
from marketplace_sync.tests.chaos.eyes import Eyes
from marketplace_sync.tests.chaos.hands import ROOMS, Hands
from marketplace_sync.tests.chaos.judge import after_the_stop, epochs_taken, of_a_daemon, unsettled
from marketplace_sync.tests.chaos.proxy import Proxy
from marketplace_sync.tests.chaos.script import SLOTS, Script
from marketplace_sync.tests.chaos.stage import TOKEN, Nursery, Stage, counted, remembering_deaths
from marketplace_sync.tests.support.harness import skill

T = TypeVar("T")

# A mirror that is not in sync by then will never be.
SETTLES_WITHIN = 60.0
# Law 13 allows 5 s; the rest is for a slow machine.
STOPS_WITHIN = 5.0 + 5.0


@dataclass(slots=True)
class Result:
    """The result of a run. `struck`: how often each trouble had an effect; `violations`: empty after a good run."""

    seed: int
    violations: list[str]
    struck: dict[str, int]
    notes: dict[str, int]
    seconds: float
    settled_after: float
    samples: int
    changes: int
    slowest_dead: float
    slowest_stream: float
    logs: dict[str, str] = field(default_factory=dict)


class World:
    """A database and a nursery, for many runs."""

    def __init__(self, scratch: Scratch, nursery: Nursery) -> None:
        self._scratch = scratch
        self._nursery = nursery

    async def run(self, script: Script) -> Result:
        """Run a script, from an empty mirror to the verdict."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="chaos-run-") as folder, _thread("hands") as hands_thread:
            with _thread("eyes") as eyes_thread:
                async with self._stage(script, Path(folder)) as stage:
                    eyes = Eyes(stage, eyes_thread)
                    settled = await self._play(script, stage, eyes, Hands(stage, hands_thread), hands_thread)
                    await self._verdict(stage, eyes, hands_thread, eyes_thread)
                    logs = {one.output.name: _log_of(one.output) for one in stage.daemons}
                    return Result(
                        script.seed, stage.violations, dict(stage.struck), dict(stage.notes),
                        round(time.monotonic() - began, 2), round(settled, 2), eyes.samples, eyes.after,
                        round(eyes.slowest_dead, 2), round(eyes.slowest_stream, 2), logs,
                    )  # fmt: skip

    @asynccontextmanager
    async def _stage(self, script: Script, folder: Path) -> AsyncIterator[Stage]:
        await asyncio.to_thread(self._scratch.empty)
        market = Marketplace(
            [skill(number, category=ROOMS[number % len(ROOMS)]) for number in range(script.skills)],
            [{"name": name, "description": f"About {name}.", "skill_count": 1, "icon_url": None,
              "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"} for name in ROOMS],
        )  # fmt: skip
        deaths: Counter[str] = Counter()
        remembering_deaths(market, deaths)
        async with AsyncExitStack() as stack:
            server = SimulatorServer(
                market, TOKEN, requests_per_minute=0, connects_per_minute=0, heartbeat_interval=1.0, pong_timeout=2.0
            )
            await stack.enter_async_context(server)
            nets = {slot: await stack.enter_async_context(Proxy(server.port)) for slot in SLOTS}
            to_database = {slot: await stack.enter_async_context(Proxy(self._scratch.port)) for slot in SLOTS}
            stage = Stage(self._scratch, self._nursery, server, nets, to_database, script.settings, folder,
                          deaths=deaths)  # fmt: skip
            counted(server.faults, stage.struck)
            try:
                yield stage
            finally:
                for daemon in stage.daemons:
                    stage.look()
                    if daemon.status is None:
                        stage.send(daemon, signal.SIGKILL)

    async def _play(
        self, script: Script, stage: Stage, eyes: Eyes, hands: Hands, thread: ThreadPoolExecutor
    ) -> float:  # fmt: skip
        """Play the troubles, and wait until the mirror has settled. Return how many seconds that took."""
        watching = asyncio.create_task(eyes.watch(), name="eyes")
        supervising = asyncio.create_task(_supervise(stage), name="supervisor")
        try:
            await stage.start("a")
            if script.wait_until_live:
                await _until(lambda: eyes.last is not None and eyes.last.row.state == "live", SETTLES_WITHIN)
            await hands.play(script)
            await hands.lift()
            began = time.monotonic()
            await self._settle(stage, hands, thread)
            settled = time.monotonic() - began
            if not script.polls and not stage.violations:
                await hands.encore()
                await self._settle(stage, hands, thread)
            supervising.cancel()
            await self._stop(stage)
            await eyes.sample()
        finally:
            for task in (watching, supervising):
                task.cancel()
            ended = await asyncio.gather(watching, supervising, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
        return settled

    async def _settle(self, stage: Stage, hands: Hands, thread: ThreadPoolExecutor) -> None:
        deadline = time.monotonic() + SETTLES_WITHIN
        quiet = 0
        while quiet < 2:
            left = await _ask(thread, unsettled, stage.market)
            owners = [
                one.output.name for one in stage.daemons if one.status is None and epochs_taken(_log_of(one.output))
            ]
            if len(owners) != 1:
                left.reasons.append(f"{len(owners)} daemons believe that they own the mirror: {owners}")
            quiet = 0 if left.reasons else quiet + 1
            if left.reasons and time.monotonic() > deadline:
                stage.violated(f"not settled after {SETTLES_WITHIN:g} s of peace: {'; '.join(left.reasons)}")
                return
            if left.enable:
                await hands.ask(Command.Action.ENABLE)
            if left.reconnect:
                await hands.ask(Command.Action.RECONNECT)
            if left.approve:
                stage.notes["held runs approved"] += 1
                await hands.ask(Command.Action.APPROVE, run=left.approve)
            await asyncio.sleep(0.25)

    async def _stop(self, stage: Stage) -> None:
        """Stop every daemon, and note those that do not end in time."""
        stage.wanted.clear()
        asked = [daemon for daemon in stage.daemons if daemon.status is None]
        for daemon in asked:
            daemon.doomed = daemon.doomed or "SIGTERM"
            daemon.asked_to_stop_at = time.monotonic()
            stage.send(daemon, signal.SIGTERM)

        def all_ended() -> bool:
            stage.look()
            return all(daemon.status is not None for daemon in asked)

        if not await _until(all_ended, STOPS_WITHIN):
            stage.violated(f"a daemon did not stop within {STOPS_WITHIN:g} s")

    async def _verdict(
        self, stage: Stage, eyes: Eyes, hands_thread: ThreadPoolExecutor, eyes_thread: ThreadPoolExecutor
    ) -> None:  # fmt: skip
        found, untrue = await _ask(hands_thread, after_the_stop, stage.market, stage.deaths)
        found += [f"in the subscriber's copy, {text}" for text in await _ask(eyes_thread, eyes.copy.from_the_mirror)]
        if untrue:
            stage.notes["removals by two clean listings that lied alike"] += untrue
        for daemon in stage.daemons:
            if daemon.status is None:
                continue
            if daemon.status == 1:
                stage.notes["daemons that ended loudly"] += 1
            trouble = stage.scratch.postgres or stage.struck["database-lock"] > 0
            found += of_a_daemon(daemon, _log_of(daemon.output), database_trouble=trouble)
        epochs = [epoch for daemon in stage.daemons for epoch in epochs_taken(_log_of(daemon.output))]
        if len(epochs) != len(set(epochs)):
            stage.violated(f"an epoch was given twice: {sorted(epochs)}")
        for text in found[:30]:
            stage.violated(text)


async def _supervise(stage: Stage) -> None:
    while True:
        await asyncio.sleep(0.2)
        await stage.supervise()


async def _until(true: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def _ask(thread: ThreadPoolExecutor, question: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, question, *args)


@contextlib.contextmanager
def _thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """Run one thread with a separate database connection."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) as pool:
        try:
            yield pool
        finally:
            pool.submit(connections.close_all).result()


def _owners(stage: Stage) -> list[str]:
    """Return the running daemons that have taken the lease at some time. All but one must have ended."""
    return [one.output.name for one in stage.daemons if one.status is None and epochs_taken(_log_of(one.output))]


def _log_of(output: Path) -> str:
    return output.read_text(errors="replace") if output.exists() else ""
