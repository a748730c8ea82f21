"""Carry out the steps of a script on a stage."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connections

from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.mirror.commands import TooManyOpenCommandsError, submit_command
from marketplace_sync.models import Command
from marketplace_sync.simulator.listing import DRIFT_ID
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.tests.chaos.proxy import Proxy
from marketplace_sync.tests.chaos.script import Script, Step
from marketplace_sync.tests.chaos.stage import Daemon, Stage
from marketplace_sync.tests.support.harness import skill

ROOMS = ("automation", "data", "media", "Fotos & Töne", "研究")
# Names and texts that may occur.
TEXTS = (
    "plain",
    "Ünïcödé",
    "emoji 🦜",
    "<b>bold</b>",
    "a 'quote'",
    'a "quote"',
    "back\\slash",
    "line\nbreak",
    "x" * 399,
)


class Hands:
    """Plays a script on a stage."""

    def __init__(self, stage: Stage, thread: ThreadPoolExecutor) -> None:
        self._stage = stage
        self._thread = thread
        self._market_away = False
        self._lasting: set[asyncio.Task[None]] = set()
        self._doing: dict[str, Callable[[Step], Awaitable[None]]] = {
            "change": self._change, "command": self._command, "fault": self._fault, "standby": self._standby,
            "kill -9": self._kill, "SIGTERM": self._stop, "pause": self._pause, "cut": self._net, "stall": self._net,
            "one-way": self._net, "delay": self._net, "market-gone": self._market_gone,
            "market-drop": self._market_drop, "clock": self._clock, "database-lock": self._database_lock,
            "database-terminate": self._database_terminate, "database-cut": self._database_net,
            "database-stall": self._database_net, "database-one-way": self._database_net,
            "database-read-only": self._database_read_only,
        }  # fmt: skip

    async def play(self, script: Script) -> None:
        """Carry out all steps, and wait until the lasting ones have ended."""
        began = time.monotonic()
        for step in script.steps:
            await asyncio.sleep(max(0.0, began + step.at - time.monotonic()))
            if step.do in ("change", "command", "fault", "standby"):
                await self._doing[step.do](step)
            else:
                # Troubles overlap: none waits for another.
                task = asyncio.create_task(self._do(step), name=step.do)
                self._lasting.add(task)
        await asyncio.gather(*self._lasting)

    async def _do(self, step: Step) -> None:
        await self._doing[step.do](step)

    async def lift(self) -> None:
        """Remove all troubles: repair marketplace and networks, resume paused daemons, want one in the first slot."""
        stage = self._stage
        stage.server.faults.clear()
        for net in (*stage.nets.values(), *stage.database_nets.values()):
            net.repair()
        for daemon in stage.daemons:
            if daemon.paused:
                stage.send(daemon, signal.SIGCONT)
                daemon.paused = False
        stage.wanted.add("a")

    async def encore(self) -> None:
        """Announce changes of one skill out of order, when no full sync will follow: their times must decide."""
        market, faults = self._stage.market, self._stage.server.faults
        record = market.put_skill(skill(20_000, **_content(random.Random(1))))
        faults.add("reorder", linger=0.1)
        for number in range(4):
            market.put_skill({**record, "version": f"encore {number}"})
        faults.clear()

    async def ask(self, action: Command.Action, **args: object) -> bool:
        """Submit a command, as the API does. Return whether the database accepted it."""

        def asking() -> bool:
            try:
                submit_command(action, by=COMMAND_LINE.ident, args=args)
            except (DatabaseError, TooManyOpenCommandsError):
                connections.close_all()
                return False
            return True

        return await asyncio.get_running_loop().run_in_executor(self._thread, asking)

    # The marketplace and its people.

    async def _change(self, step: Step) -> None:
        change(self._stage.market, random.Random(step.args["draw"]), step.args["kind"], announce=step.args["announce"])

    async def _command(self, step: Step) -> None:
        if await self.ask(Command.Action(step.args["action"])):
            self._stage.struck[f"command {step.args['action']}"] += 1

    async def _fault(self, step: Step) -> None:
        faults = self._stage.server.faults
        args = dict(step.args)
        name = args.pop("name")
        faults.add(name, args.pop("times", None), every=args.pop("every", 1), **args)

        async def lifted() -> None:
            await asyncio.sleep(step.lasts)
            faults.remove(name)

        self._lasting.add(asyncio.create_task(lifted(), name=f"lift {name}"))

    async def _market_gone(self, step: Step) -> None:
        if self._market_away:
            return
        self._market_away = True
        self._struck(step)
        server = self._stage.server
        await server.hang_up()
        await asyncio.sleep(step.lasts)
        try:
            await server.listen()
        except OSError:
            # Somebody else has the port by now.
            server.port = 0
            await server.listen()
            for net in self._stage.nets.values():
                net.target = server.port
        self._market_away = False

    async def _market_drop(self, step: Step) -> None:
        server = self._stage.server
        if server.clients:
            self._struck(step)
            await server.drop_connections(step.args["code"])

    async def _clock(self, step: Step) -> None:
        self._struck(step)
        self._stage.server.clock_skew = timedelta(hours=step.args["hours"])
        await asyncio.sleep(step.lasts)
        self._stage.server.clock_skew = timedelta()

    # The daemons.

    async def _standby(self, step: Step) -> None:
        await self._stage.start("b")

    def _there(self, step: Step) -> Daemon | None:
        daemon = self._stage.running(step.args["slot"])
        if daemon is None or daemon.doomed:
            return None
        self._struck(step)
        return daemon

    async def _kill(self, step: Step) -> None:
        if daemon := self._there(step):
            await self._down(daemon, signal.SIGKILL, step)

    async def _stop(self, step: Step) -> None:
        if daemon := self._there(step):
            daemon.asked_to_stop_at = time.monotonic()
            await self._down(daemon, signal.SIGTERM, step)

    async def _down(self, daemon: Daemon, number: signal.Signals, step: Step) -> None:
        stage = self._stage
        daemon.doomed = step.do
        stage.wanted.discard(daemon.slot)
        stage.send(daemon, number)
        await asyncio.sleep(step.lasts)
        while daemon.status is None:
            stage.look()
            await asyncio.sleep(0.02)
        await stage.start(daemon.slot)

    async def _pause(self, step: Step) -> None:
        daemon = self._there(step)
        if daemon is None or daemon.paused:
            return
        self._stage.send(daemon, signal.SIGSTOP)
        daemon.paused = True
        await asyncio.sleep(step.lasts)
        daemon.paused = False
        self._stage.send(daemon, signal.SIGCONT)

    # The networks.

    async def _net(self, step: Step) -> None:
        await self._trouble_on(self._stage.nets[step.args["slot"]], step)

    async def _database_net(self, step: Step) -> None:
        await self._trouble_on(self._stage.database_nets[step.args["slot"]], step)

    async def _trouble_on(self, net: Proxy, step: Step) -> None:
        self._struck(step)
        match step.do.removeprefix("database-"):
            case "cut":
                net.cut()
            case "stall":
                net.stall()
            case "one-way":
                net.lose_answers()
            case "delay":
                net.delay = step.args["by"]
        await asyncio.sleep(step.lasts)
        net.repair()

    # The database.

    async def _database_lock(self, step: Step) -> None:
        self._struck(step)
        self._stage.database_trouble(step.lasts + 1)
        await asyncio.to_thread(self._stage.scratch.lock, step.args["what"], step.lasts)
        self._stage.database_trouble(0)

    async def _database_terminate(self, step: Step) -> None:
        self._struck(step)
        self._stage.database_trouble(0.2)
        await asyncio.to_thread(self._stage.scratch.terminate)

    async def _database_read_only(self, step: Step) -> None:
        self._struck(step)
        self._stage.database_trouble(step.lasts + 1)
        await asyncio.to_thread(self._stage.scratch.read_only, True)
        await asyncio.sleep(step.lasts)
        await asyncio.to_thread(self._stage.scratch.read_only, False)
        self._stage.database_trouble(0.5)

    def _struck(self, step: Step) -> None:
        self._stage.struck[step.do] += 1


def change(market: Marketplace, rng: random.Random, kind: str, *, announce: bool) -> None:
    """Make one change of the catalogue. `announce`: whether the stream announces it."""
    # page-drift sends only some fields of its own skill, so other changes of that one would never be reported.
    ours = sorted(market.skills.keys() - {DRIFT_ID})
    some = rng.choice(ours) if ours else None
    match kind:
        case "create":
            market.put_skill(skill(rng.randrange(1_000, 9_999), **_content(rng)), announce=announce)
        case "revive":
            market.put_skill(skill(rng.randrange(0, 20), **_content(rng)), announce=announce)
        case "category":
            market.put_category({"name": rng.choice(ROOMS), "description": rng.choice(TEXTS),
                                 "skill_count": rng.randrange(1_000)}, announce=announce)  # fmt: skip
        case "category-gone":
            _drop_category(market, rng, announce=announce)
        case "bulk-delete":
            for gone in rng.sample(ours, len(ours) // 2):
                market.delete_skill(gone, announce=announce)
        case _ if some is None:
            return
        case "update":
            market.put_skill({"skill_id": some, "name": "Changed", **_content(rng)}, announce=announce)
        case "short":
            market.put_skill({"skill_id": some, "name": rng.choice(TEXTS)}, announce=announce)
        case "rate":
            market.rate(some, rng.randint(1, 5), announce=announce)
        case "vote":
            market.rate(some, rng.randint(1, 5), announce=announce, with_average=False)
        case "burst":
            _burst(market, rng, some, announce=announce)
        case "delete":
            market.delete_skill(some, announce=announce)
        case _:
            raise ValueError(f"no such change: {kind}")


def _content(rng: random.Random) -> dict[str, Any]:
    return {
        "description": rng.choice(TEXTS), "version": f"{rng.randrange(9)}.{rng.randrange(99)}",
        "category": rng.choice((None, *ROOMS)), "tags": rng.sample(TEXTS, rng.randrange(3)),
        "metadata": {"a": rng.choice((None, 1, 2.5, [1, {"b": "c"}], 10**40))}, "license": rng.choice(("MIT", None)),
    }  # fmt: skip


def _burst(market: Marketplace, rng: random.Random, skill_id: str, *, announce: bool) -> None:
    """Change one skill several times in a row: what arrives out of order must not win."""
    for _ in range(rng.randint(3, 8)):
        market.put_skill({"skill_id": skill_id, "name": "Burst", **_content(rng)}, announce=announce)
        match rng.choice(("rate", "gone", "nothing")):
            case "rate":
                market.rate(skill_id, rng.randint(1, 5), announce=announce)
            case "gone":
                market.delete_skill(skill_id, announce=announce)
                market.put_skill({**skill(0), "skill_id": skill_id, **_content(rng)}, announce=announce)


def _drop_category(market: Marketplace, rng: random.Random, *, announce: bool) -> None:
    """Remove a category after emptying it; the protocol has no message for that."""
    if not market.categories:
        return
    name = rng.choice(sorted(market.categories))
    for skill_id, record in list(market.skills.items()):
        if record.get("category") == name:
            market.put_skill({"skill_id": skill_id, "name": record["name"], "category": None}, announce=announce)
    del market.categories[name]
