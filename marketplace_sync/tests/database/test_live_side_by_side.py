"""Writers, a standby's take-over, pruning and clients that reconnect, concurrently: the feed still equals the mirror.

Each client builds the mirror from the changes it receives, and remembers its state at every number. There are two web
processes, one of which lags, and a client reconnects to either. Meanwhile an observer takes snapshots of the real
mirror, each with its feed number.
"""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction
from websockets.exceptions import ConnectionClosed

from marketplace_sync.api.snapshot import snapshot
from marketplace_sync.live.feed import newest_seq
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.mirror.lease import LeaseLostError, acquire
from marketplace_sync.mirror.retention import forget_changes
from marketplace_sync.models import Category, LeaseRow, Skill
from marketplace_sync.tests.support.live_feed import (
    PATIENCE,
    Pen,
    Web,
    agent_key,
    ask,
    category,
    change,
    put,
    rate,
    remove,
    until,
    web,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

TAKEOVERS = 2
CHANGES_EACH = 150
KEPT = 60
CLIENTS = 5
SEED = 20260101

State = dict[tuple[str, str], str]  # what it is and its key: the whole record as JSON


def as_text(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)


def time_text(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def mirror_now() -> tuple[int, State]:
    """Return the whole mirror in the format of the feed, and its feed number."""
    times = ("remote_created_at", "remote_updated_at")
    fields = ("name", "description", "version", "code", "command", "python_packages", "npm_packages", "tags")
    fields += ("metadata", "average_rating", "rating_count", "extra")
    with snapshot() as moment:
        state = {
            ("category", row.name): as_text(
                {name: getattr(row, name) for name in ("name", "description", "icon_url", "skill_count")}
                | {name: time_text(getattr(row, name)) for name in times}
            )
            for row in Category.objects.all()
        }
        for skill in Skill.objects.select_related("category"):
            state["skill", skill.skill_id] = as_text(
                {name: getattr(skill, name) for name in fields}
                | {name: time_text(getattr(skill, name)) for name in (*times, "rating_at")}
                | {"skill_id": skill.skill_id, "category": skill.category.name if skill.category else None}
            )
        return moment.feed_seq, state


class Reader:
    """A client that comes and goes. `states`: what it had put together at each number."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(SEED + number)
        self.sleepy = number == 0  # stays away until its place has been pruned
        self.seq = 0
        self.state: State = {}
        self.states: dict[int, int] = {}
        self.visits = self.relisted = 0

    async def read(self, webs: Sequence[Web], key: str, end: "asyncio.Future[int]", newest: Callable[[], int]) -> None:
        """Follow until the last number is known and reached."""
        while not (end.done() and self.seq == end.result()):
            self.visits += 1
            try:
                # The other process may not have read yet what this one has sent.
                async with self.random.choice(webs).client(key, f"?after={self.seq}") as connection:
                    for _ in range(self.random.choice((1, 3, 10, 40))):
                        # The last messages may be heartbeats alone: a quiet connection is left after one.
                        message = json.loads(await asyncio.wait_for(connection.recv(), PATIENCE))
                        for change in message.get("changes", ()):
                            self.apply(change)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None and closed.rcvd.code == 4410, closed
                self.seq, self.state = await ask(mirror_now)
                self.relisted += 1
            if self.sleepy and not end.done():
                gone_at = self.seq + 2 * KEPT
                await until(lambda gone_at=gone_at: newest() > gone_at or end.done(), "the feed went on")

    def apply(self, change: dict[str, Any]) -> None:
        assert change["seq"] == self.seq + 1
        self.seq = change["seq"]
        what, _, happened = change["kind"].partition("_")
        what = "skill" if what == "rating" else what
        key = what, change["key"]
        if happened == "created":
            assert key not in self.state
            self.state[key] = as_text(change["data"])
        elif happened == "deleted":
            del self.state[key]
        else:
            self.state[key] = as_text(json.loads(self.state[key]) | change["data"])
        self.states[self.seq] = hash(frozenset(self.state.items()))


def random_events(dice: random.Random) -> list[Any]:
    events = []
    for _ in range(dice.randint(1, 5)):
        skill_id, name = f"s{dice.randrange(12)}", f"c{dice.randrange(3)}"
        events.append(
            dice.choice(
                (
                    put(skill_id, version=str(dice.random()), category=dice.choice((name, None))),
                    change(skill_id, description=str(dice.random())),
                    rate(skill_id, dice.randint(2, 10) / 2, dice.randrange(100)),
                    remove(skill_id),
                    category(name, description=str(dice.random())),
                )
            )
        )
    return events


class Side:
    """What runs in threads of its own beside the clients."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.newest = 0
        self.lost = 0
        self.pictures: dict[int, State] = {}

    def write(self, pen: Pen) -> None:
        """Write as a daemon does, until stopped or until another daemon takes over."""
        dice = random.Random(SEED * pen.lease.epoch)
        try:
            while not self.stop.is_set():
                # The numbers are of the time when it was committed: this one may lag behind a successor's.
                self.newest = max(self.newest, pen.write(*random_events(dice)))
                forget_changes(pen.lease, keep_days=30, keep_rows=KEPT)
        except LeaseLostError:
            self.lost += 1
        finally:
            connections.close_all()

    def observe(self) -> None:
        try:
            while not self.stop.is_set():
                seq, state = mirror_now()
                self.pictures[seq] = state
        finally:
            connections.close_all()


def take_over(first: int) -> Pen:
    """Expire the lease, so that a standby takes it, whatever the owner is doing."""
    with transaction.atomic():  # the owner renews by writing, and writes all the time
        LeaseRow.objects.update(renewed_at=datetime(2026, 1, 1, tzinfo=UTC))
        return Pen(acquire("standby"), first)


async def test_state_that_clients_build_equals_the_mirror_at_every_number() -> None:
    key = await ask(agent_key)
    side = Side()
    readers = [Reader(number) for number in range(CLIENTS)]
    end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    # A short ring and short pages: clients are served out of both, and fall from one into the other.
    limits = SubscriptionLimits(poll=0.02, gap=0.005, heartbeat=0.2, page=20, recent_rows=30)
    late = replace(limits, poll=0.1, gap=0.05)
    async with web(limits) as one, web(late) as other, asyncio.TaskGroup() as tasks:
        with ThreadPoolExecutor(TAKEOVERS + 2) as threads:
            try:
                beside = [loop.run_in_executor(threads, side.observe)]
                for reader in readers:
                    tasks.create_task(reader.read((one, other), key, end, lambda: side.newest))
                for owner in range(TAKEOVERS + 1):
                    pen = await ask(take_over, owner * 1_000_000 + 1)
                    beside.append(loop.run_in_executor(threads, side.write, pen))
                    enough = (owner + 1) * CHANGES_EACH
                    await until(lambda enough=enough: side.newest > enough, f"{enough} changes are written")
            finally:
                side.stop.set()
            await asyncio.gather(*beside)
        end.set_result(await ask(newest_seq))

    last, mirror = await ask(mirror_now)
    assert last == end.result()
    for reader in readers:
        assert reader.seq == last
        different = {key for key in reader.state.keys() | mirror if reader.state.get(key) != mirror.get(key)}
        assert {key: (reader.state.get(key), mirror.get(key)) for key in different} == {}
    pictures = {seq: hash(frozenset(state.items())) for seq, state in side.pictures.items() if seq}
    compared = 0
    for reader in readers:
        for seq in pictures.keys() & reader.states.keys():
            assert reader.states[seq] == pictures[seq], f"at {seq}"
            compared += 1
    assert side.lost == TAKEOVERS
    assert readers[0].relisted, "nobody came back too late"
    assert sum(reader.visits for reader in readers) > 2 * CLIENTS
    assert compared > 20
