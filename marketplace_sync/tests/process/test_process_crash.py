"""kill -9 at random moments: committed changes stay, others come again, and nothing is stored twice."""

import asyncio
import json
import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marketplace_sync.mirror.lease import LEASE_SECONDS
from marketplace_sync.mirror.state import state_row
from marketplace_sync.mirror.status import DEAD_AFTER_SECONDS
from marketplace_sync.models import Command, LeaseRow, SyncRun
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.replay import replay
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.conftest import EXAMPLES
from marketplace_sync.tests.support.harness import Mirror, age_the_lease, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import (
    Environment,
    Program,
    Programs,
    mirrored,
    programs,
    settings_for,
    until,
)
from marketplace_sync.tests.support.truth import from_the_truth, in_the_feed

pytestmark = pytest.mark.django_db(transaction=True)

# Ten of them in `.ci/run`; each costs the start of a daemon.
KILLS = max(4, round(10 * EXAMPLES))
ROOMS = ("automation", "data", "media", "research", "documents")


async def kill(daemon: Program, watched: Mirror) -> None:
    """Send kill -9. The rows look like those of a dead daemon 15 s later, and its run stays open."""
    daemon.kill()
    await watched.ask(age_the_lease, DEAD_AFTER_SECONDS + 0.1)
    status = await watched.status()
    assert (status.alive, status.row.state, status.row.connected) == (False, "not_running", False)


async def all_runs_are_closed(watched: Mirror, left_open: set[int]) -> None:
    states = dict(await watched.ask(lambda: list(SyncRun.objects.values_list("pk", "state"))))
    assert "running" not in states.values()
    assert {states[run] for run in left_open} <= {"interrupted"}


def open_runs() -> set[int]:
    return set(SyncRun.objects.filter(state="running").values_list("pk", flat=True))


async def test_mirror_is_in_sync_after_kills_during_a_full_sync(program_environment: Environment) -> None:
    rng = random.Random(4711)
    async with marketplace(skills=200) as server, mirror(server, start=False) as watched:
        for name in ROOMS[1:]:
            server.market.put_category({"name": name, "description": f"About {name}."})
        with programs(program_environment(**settings_for(server, ATOM_SAAS_PAGE_SIZE=10))) as start:
            left_open: set[int] = set()
            for number in range(KILLS):
                # The categories and 20 pages are 21 requests, four of them at the same time.
                daemon = start.start("runsync")
                await killed_at_request(daemon, server, watched, rng.randint(1, 21), rng.uniform(0, 0.03))
                left_open |= await watched.ask(open_runs)
                change_unheard(server.market, rng, number)
            assert left_open, "no kill came during a full sync: it is too short"

            # The last one is not killed: it waits until the dead owner's lease has expired.
            last = start.start("runsync")

            async def waits() -> bool:
                await watched.ask(LeaseRow.objects.update, renewed_at=datetime.now(UTC))
                return "standing_by" in last.err

            await until(waits, "it meets the lease of the dead one")
            # Its own log counts: within 15 s the row may still show the last state of a dead daemon.
            await last.prints("state=live", LEASE_SECONDS + 50)
            assert (await watched.difference()).in_sync
            last.send(signal.SIGTERM)
            assert (await last.ended()).status == 0
            assert await watched.ask(from_the_truth, server.market) == []
            assert await watched.ask(in_the_feed) == []
            await all_runs_are_closed(watched, left_open)


async def killed_at_request(
    daemon: Program, server: SimulatorServer, watched: Mirror, number: int, after: float
) -> None:
    """Kill the daemon `after` seconds after so many requests, while it waits for no answer of ours."""
    asked = 0
    reached = asyncio.Event()

    async def count(_: str) -> None:
        nonlocal asked
        asked += 1
        if asked == number:
            reached.set()

    server.on_request = count
    await until(lambda: reached.is_set() or not daemon.running, "the full sync is under way")
    assert daemon.running
    # A random moment, chosen by the seed.
    await asyncio.sleep(after)
    server.on_request = None
    await kill(daemon, watched)


def change_unheard(market: Marketplace, rng: random.Random, number: int) -> None:
    """Make changes that only the listing shows: half of the skills, one removed, two new."""
    for skill_id in rng.sample(sorted(market.skills), 100):
        market.put_skill({"skill_id": skill_id, "description": f"Round {number}.", "category": rng.choice(ROOMS)},
                         announce=False)  # fmt: skip
    market.delete_skill(rng.choice(sorted(market.skills)), announce=False)
    for new in (1000 + 2 * number, 1001 + 2 * number):
        market.put_skill(skill(new, category=rng.choice(ROOMS)), announce=False)


# The replay drains, and can be interrupted, after each batch of this many messages.
STEP = 32
# So many that the 404s of a few unclean syncs, 20 each, cannot prove them all to be gone.
BULK = range(9000, 9150)
BULK_STEPS = -(-len(BULK) // STEP)


def made_up_history(rng: random.Random, steps: int, bulk_at: int) -> list[dict[str, Any]]:
    """Return a trace of `steps` times 32 messages. The bulk is created first and deleted from step `bulk_at` on."""
    began = datetime(2026, 2, 1, tzinfo=UTC)
    alive = {f"skill-{number:05}" for number in range(150)}
    messages: list[dict[str, Any]] = []

    def send(kind: str, **data: Any) -> None:
        at = (began + timedelta(milliseconds=len(messages))).isoformat(timespec="milliseconds")
        data["deleted_at" if kind == "skill_delete" else "updated_at"] = at
        messages.append({"type": kind, "data": data, "timestamp": at})

    for number in BULK:
        send("skill_update", **skill(number, category=rng.choice(ROOMS)))
    while len(messages) < steps * STEP:
        if len(messages) == bulk_at * STEP:
            for number in BULK:
                send("skill_delete", skill_id=f"skill-{number:05}")
        skill_id = f"skill-{rng.randrange(250):05}"
        if skill_id not in alive:
            alive.add(skill_id)
            send("skill_update", **skill(int(skill_id[6:]), category=rng.choice(ROOMS)))
            continue
        match rng.choice(("update", "update", "short", "rate", "category", "delete")):
            case "update":
                new = {"version": f"2.0.{len(messages)}", "category": rng.choice(ROOMS)}
                send("skill_update", **skill(int(skill_id[6:]), **new))
            case "short":
                send("skill_update", skill_id=skill_id, name=f"Short {len(messages)}")
            case "rate":
                figures = {"average_rating": rng.randint(100, 500) / 100, "rating_count": len(messages)}
                send("rating_update", skill_id=skill_id, rating=rng.randint(1, 5), **figures)
            case "category":
                send("category_update", name=rng.choice(ROOMS), description=f"As of {len(messages)}.")
            case "delete":
                alive.discard(skill_id)
                send("skill_delete", skill_id=skill_id)
    return messages[: steps * STEP]


class Interrupted:
    """Interrupt a replay at certain messages: kill the daemon, let some messages go unreceived, start the next."""

    def __init__(self, start: Programs, server: SimulatorServer, watched: Mirror, kills: dict[int, int]) -> None:
        self._start = start
        self._server = server
        self._watched = watched
        self._kills = kills  # number of the message: how many after it nobody receives
        self._played = 0
        self._away_until = 0
        self._rng = random.Random(1)
        self.left_open: set[int] = set()
        self.daemon: Program | None = None

    async def drain(self) -> None:
        """Interrupt the replay if it is time to; called after every 32 messages."""
        self._played += STEP
        if self.daemon is not None and self._played in self._kills:
            # Some messages are on the wire then, some are read, some are being written.
            await asyncio.sleep(self._rng.uniform(0, 0.05))
            self._away_until = self._played + self._kills[self._played]
            await kill(self.daemon, self._watched)
            self.left_open |= await self._watched.ask(open_runs)
            await self._server.until(lambda: not self._server.clients)
            self.daemon = None
        elif self.daemon is None and self._played >= self._away_until:
            await self.begin()
        await self._server.drain()

    async def begin(self) -> None:
        """Start a daemon, and wait until its stream is open."""
        daemon = self.daemon = self._start.start("runsync")
        await until(lambda: self._server.clients or not daemon.running, "the next daemon has its stream")
        assert daemon.running


async def test_repair_brings_the_mirror_in_sync_after_kills_during_a_replay(
    program_environment: Environment, tmp_path: Path
) -> None:
    rng = random.Random(815)
    steps, bulk_at = 46, 25
    trace = tmp_path / "trace.jsonl"
    trace.write_text("\n".join(map(json.dumps, made_up_history(rng, steps, bulk_at))))
    # One kill comes just before the bulk, so that no daemon receives it; the others come where the seed puts them.
    kills = {
        step * STEP: rng.randint(1, 2) * STEP for step in rng.sample([*range(3, 24, 3), *range(32, 44, 3)], KILLS - 1)
    }
    kills[bulk_at * STEP] = BULK_STEPS * STEP
    async with mirrored(program_environment, skills=150, ATOM_SAAS_PAGE_SIZE=10) as (server, watched, start):
        replaying = Interrupted(start, server, watched, kills)
        await replaying.begin()
        await replay(server.market, trace, 600.0, replaying.drain)
        assert len(start.started) == KILLS + 1
        await start.started[-1].prints("state=live")

        # No daemon received the bulk's removals, and they are too many for a listing alone to prove. So as many of them
        # as the mirror had stored need approval, with the few others that were removed between two daemons. On a
        # machine so slow that the kills left the mirror nearly empty there are none. A full sync of the quiet
        # marketplace shows it.
        answer = await watched.command(Command.Action.SYNC)
        assert answer.state == "done"
        run = await watched.ask(SyncRun.objects.get, pk=answer.result["run"])
        waiting = set(await watched.ask(lambda: list(run.held_removals.values_list("skill_id", flat=True))))
        assert len(waiting) == run.held_count == answer.result["held"]
        assert run.state == answer.result["state"] == ("held" if waiting else "done")
        difference = await watched.difference()
        assert difference.extra == waiting
        assert not (difference.missing or difference.different or difference.categories)
        daemon = replaying.daemon
        assert daemon is not None
        daemon.send(signal.SIGTERM)
        assert (await daemon.ended()).status == 0

        repaired = await start.run("verifysync", "--repair")
        assert (repaired.status, repaired.out) == (0, "In sync with the marketplace.\n")
        assert await watched.ask(from_the_truth, server.market) == []
        assert await watched.ask(in_the_feed) == []
        await all_runs_are_closed(watched, replaying.left_open)
        row = await watched.ask(state_row)
        assert row.shed == row.rejected == 0
