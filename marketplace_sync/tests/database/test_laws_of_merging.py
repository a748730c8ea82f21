"""Laws 1 to 5 as properties: whatever comes in whatever order, the mirror equals the marketplace after a full sync.

The marketplace is the simulator's own truth, its answers and messages are the bytes it would send, and the
mirror is the real one: intake, writer, passes and database. What is left out is the network, whose
part is played by a script that Hypothesis writes: messages are delivered, lost, doubled and swapped, and
the truth changes between a request and its answer.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon import writer
from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.intake import Intake
from marketplace_sync.daemon.observer import Observers
from marketplace_sync.daemon.session import writing_session
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.writer import AHEAD_FROM
from marketplace_sync.engine.rates import TokenBucket
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.removals import held_removals
from marketplace_sync.models import Category, FeedChange, Skill, Tombstone
from marketplace_sync.protocol.events import CategoryPage, SkillPage, SkillRecord
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.http import Api, HttpRequest
from marketplace_sync.simulator.marketplace import Marketplace

pytestmark = pytest.mark.django_db(transaction=True)

# What is decided is the same on both databases; PostgreSQL takes longer for each commit.
EXAMPLES = 500 if "sqlite" in connection.vendor else 150

IDS = [f"s{number}" for number in range(5)]
EPOCH = datetime(2026, 3, 1, tzinfo=UTC)

Op = tuple[Any, ...]

ids = st.sampled_from(IDS)
truth_ops = st.one_of(
    st.tuples(st.just("put"), ids, st.sampled_from(["a", "b"]), st.sampled_from(["x", "y", None])),
    st.tuples(st.just("short"), ids, st.sampled_from(["a", "b"])),
    st.tuples(st.just("delete"), ids),
    st.tuples(st.just("rate"), ids, st.integers(1, 5), st.booleans()),
    st.tuples(st.just("category"), st.sampled_from(["x", "y"]), st.sampled_from(["a", "b"])),
    st.tuples(st.just("tick")),
)
wire_ops = st.one_of(
    st.tuples(st.just("deliver")),
    st.tuples(st.just("drop")),
    st.tuples(st.just("double")),
    st.tuples(st.just("swap")),
)
ops = st.one_of(truth_ops, wire_ops, st.tuples(st.just("sync")))


class World:
    """The marketplace, the wire and the script that moves both."""

    def __init__(self, script: Sequence[Op]) -> None:
        self.script = deque(script)
        self.now = EPOCH
        self.market = Marketplace()
        self.market.now = lambda: self.now
        self.market.listeners.append(lambda message, raw: self.wire.append(json.dumps(message)))
        self.api = Api(self.market, FaultSet(), "token", lambda: self.now)
        self.wire: deque[str] = deque()
        self.receive: Callable[[str], None] = lambda raw: None

    def play(self, steps: int) -> None:
        """Run up to `steps` steps of the script; stop before a "sync", which needs a runner."""
        for _ in range(steps):
            if not self.script or self.script[0][0] == "sync":
                return
            self.step(self.script.popleft())

    def step(self, op: Op) -> None:
        match op:
            case ("put", skill_id, text, category):
                record = {"skill_id": skill_id, "name": text, "code": text, "tags": [text], "category": category}
                self.market.put_skill({**record, "average_rating": None, "rating_count": 0, "unknown": text})
            # Only for a skill that exists. A listing that leaves fields out leaves what is stored; so a skill that came
            # back without them while we were away would look unchanged.
            case ("short", skill_id, text) if skill_id in self.market.skills:
                self.market.put_skill({"skill_id": skill_id, "name": text})
            case ("delete", skill_id) if skill_id in self.market.skills:
                self.market.delete_skill(skill_id)
            case ("rate", skill_id, rating, with_average) if skill_id in self.market.skills:
                self.market.rate(skill_id, rating, with_average=with_average)
            case ("category", name, text):
                self.market.put_category({"name": name, "description": text})
            case ("tick",):
                self.now += timedelta(seconds=1)
            case ("deliver",) if self.wire:
                self.receive(self.wire.popleft())
            case ("drop",) if self.wire:
                self.wire.popleft()
            case ("double",) if self.wire:
                self.receive(self.wire[0])
                self.receive(self.wire.popleft())
            case ("swap",) if len(self.wire) > 1:
                self.wire[0], self.wire[1] = self.wire[1], self.wire[0]


class ScriptedMarket:
    """The marketplace's HTTP side without a network: the script moves on while a request is under way."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def _get(self, path: str, begun: Callable[[], None] | None) -> bytes | None:
        if begun is not None:
            begun()
        self._world.play(1)
        answer = self._world.api.answer(HttpRequest("GET", path, {"authorization": "Bearer token"}, b""))
        self._world.play(1)
        await asyncio.sleep(0)
        return None if answer.status == 404 else answer.body

    async def skill_page(self, page: int, *, page_size: int, begun: Callable[[], None] | None = None) -> SkillPage:
        body = await self._get(f"/api/v1/skills?page={page}&page_size={page_size}", begun)
        assert body is not None
        return decode_skill_page(body, server_now=self._world.now)

    async def categories(self, *, begun: Callable[[], None] | None = None) -> CategoryPage:
        body = await self._get("/api/v1/categories", begun)
        assert body is not None
        return decode_category_page(body, server_now=self._world.now)

    async def skill(self, skill_id: str, *, begun: Callable[[], None] | None = None) -> SkillRecord | None:
        body = await self._get(f"/api/v1/skills/{skill_id}", begun)
        return None if body is None else decode_skill(body, server_now=self._world.now)

    def single_fetch_wait(self) -> float:
        return 0.0


class NoRepairs:
    """Losses are left to the last catch-up: the harder case."""

    def fetch(self, skill_id: str) -> None: ...

    def complete(self, skill_id: str) -> None: ...

    def loss(self) -> None: ...


async def play_out(script: Sequence[Op], config: SyncConfig) -> Marketplace:
    world = World(script)
    database = Database()
    try:
        lease = await database.control(acquire, "test:1")
        intake = Intake(
            bucket=TokenBucket(0, 0), arrivals=Arrivals(lease.epoch), repairs=NoRepairs(), totals=Counter(),
            clock=lambda: 0.0, wall=lambda: world.now,
        )  # fmt: skip
        async with writing_session(database, lease, config, Observers(intake)) as session:
            intake._arrivals = session.arrivals
            world.receive = lambda raw: intake.receive(
                decode_message(raw, server_now=world.now), raw.encode(), session.queue
            )
            options = SyncOptions(page_size=2, max_pages=100)
            runner = SyncRunner(ScriptedMarket(world), session, options, stream=intake)  # type: ignore[arg-type]

            async def one_sync() -> SyncReport:
                report = await runner.run("poll")
                assert report.error == ""
                return report

            while world.script:
                world.play(len(world.script))
                if world.script:
                    world.script.popleft()
                    await one_sync()
            world.wire.clear()  # whatever is still under way is lost with the connection
            await catch_up(runner, database)
    finally:
        await database.close()
    return world.market


async def catch_up(runner: SyncRunner, database: Database) -> None:
    """Do what the daemon does after a reconnect, with a person who approves the removals on hold."""
    report = await runner.run("connected")
    if report.held_count:
        removals = await database.control(held_removals, report.run_id)
        report = await runner.run("asked", approved=removals)
    if report.again:
        report = await runner.run("confirm")
    assert report.clean
    assert not report.held_count


def mirror_now() -> dict[str, dict[str, Any]]:
    return {
        skill.skill_id: {
            "name": skill.name, "code": skill.code, "tags": skill.tags,
            "category": skill.category.name if skill.category else None,
            "average_rating": skill.average_rating, "rating_count": skill.rating_count, "extra": skill.extra,
            "updated_at": skill.remote_updated_at,
        }
        for skill in Skill.objects.select_related("category")
    }  # fmt: skip


def truth_of(market: Marketplace) -> dict[str, dict[str, Any]]:
    return {
        skill_id: {
            "name": record["name"], "code": record.get("code", ""), "tags": record.get("tags", []),
            "category": record.get("category"),
            "average_rating": record.get("average_rating"), "rating_count": record.get("rating_count", 0),
            "extra": {"unknown": record["unknown"]} if "unknown" in record else {},
            "updated_at": datetime.fromisoformat(record["updated_at"]),
        }
        for skill_id, record in market.skills.items()
    }  # fmt: skip


def rebuilt_from_feed() -> dict[str, str]:
    """Return ids and names as a subscriber has them that knows only the feed."""
    known: dict[str, str] = {}
    for change in FeedChange.objects.order_by("seq"):
        match change.kind:
            case FeedChange.Kind.SKILL_CREATED:
                assert change.key not in known
                known[change.key] = change.data["name"]
            case FeedChange.Kind.SKILL_UPDATED:
                known[change.key] = change.data.get("name", known[change.key])
            case FeedChange.Kind.RATING_CHANGED:
                assert change.key in known
            case FeedChange.Kind.SKILL_DELETED:
                del known[change.key]
    return known


def forget_everything() -> None:
    for model in (Skill, Category, Tombstone, FeedChange):
        model.objects.all().delete()


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ops, max_size=40), st.sampled_from([1, AHEAD_FROM]))
@example(
    [("put", "s0", "a", "x"), ("sync",), ("put", "s0", "b", None), ("rate", "s0", 5, True), ("swap",), ("deliver",)],
    AHEAD_FROM,
)
@example([("put", "s0", "a", "x"), ("deliver",), ("delete", "s0"), ("put", "s0", "a", "x"), ("swap",), ("deliver",)], 1)
def test_the_mirror_equals_the_marketplace_after_a_full_sync(script: list[Op], ahead_from: int) -> None:
    """Plan every batch ahead that can be, where `ahead_from` is 1."""
    forget_everything()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "AHEAD_FROM", ahead_from)
        market = asyncio.run(play_out(script, SyncConfig()))
    mirror = mirror_now()
    assert mirror == truth_of(market)
    assert rebuilt_from_feed() == {skill_id: row["name"] for skill_id, row in mirror.items()}
    assert set(market.categories) <= set(Category.objects.values_list("name", flat=True))
    assert not set(Tombstone.objects.values_list("skill_id", flat=True)) & set(mirror)
