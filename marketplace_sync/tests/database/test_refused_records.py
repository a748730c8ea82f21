"""A refused record is content that the mirror does not have: no sync, command or answer hides that."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon import command_desk
from marketplace_sync.mirror.status import freshness
from marketplace_sync.models import Command, SyncRun, WebSocketState
from marketplace_sync.monitoring.facts import read_facts
from marketplace_sync.monitoring.health import judge
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.database.test_daemon_listing import live, sync
from marketplace_sync.tests.support.api_actors import agent
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.upstream import market as upstream_market

pytestmark = pytest.mark.django_db(transaction=True)

# Formats that a marketplace may change to without notice.
NEW_FORMATS: list[dict[str, Any]] = [
    {"updated_at": {"unix": 1768473000}}, {"tags": {"a": 1}}, {"average_rating": 8.5}, {"metadata": "text"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_market, "RETRY_DELAYS", (0.01, 0.02, 0.04))
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


def spoil(server: SimulatorServer, *numbers: int, fields: dict[str, Any] = NEW_FORMATS[2]) -> None:
    """Let the marketplace list these skills in an unreadable form from now on."""
    for number in numbers or range(len(server.market.skills)):
        server.market.skills[f"skill-{number:05}"].update(fields)


async def records_check(running: Mirror) -> tuple[str, dict[str, object]]:
    """Return the health check of the records."""
    check = judge(await running.ask(read_facts), SyncConfig()).checks["records"]
    return str(check.status), dict(check.figures)


async def test_as_of_does_not_advance_while_a_record_is_refused() -> None:
    async with live(10) as (server, running):
        first = (await running.ask(freshness)).as_of
        assert first is not None
        await running.until_db(lambda: _later_than(first), "As-Of moves while live")
        spoil(server, 3)
        assert (await sync(running)).state == "degraded"
        await running.until_db(lambda: not WebSocketState.objects.get().complete, "the status row shows it")
        stood = (await running.ask(freshness)).as_of
        await running.until_it_follows()
        assert (await running.ask(freshness)).as_of == stood, "other changes come, and it stands still"
        assert (await running.status()).row.state == "live"
        server.market.put_skill(skill(3), announce=False)
        assert (await sync(running)).state == "done"
        await running.until_db(lambda: _later_than(stood), "As-Of moves again")


async def test_message_that_is_neither_readable_nor_fetchable_stops_as_of() -> None:
    async with live(10, sync_interval_seconds=3600.0) as (server, running):
        await running.until_db(lambda: WebSocketState.objects.get().complete, "all is there")
        server.market.put_skill({"skill_id": "skill-00004", "name": "Skill 4", "tags": {"a": 1}})
        await running.until_db(lambda: not WebSocketState.objects.get().complete, "the mirror does not have it")
        stood = (await running.ask(freshness)).as_of
        # The next message causes no fetch any more, but one fetch that brings everything is enough.
        server.market.skills["skill-00004"]["tags"] = ["a"]
        server.send_raw('{"type": "skill_update", "data": {"skill_id": "skill-00004", "name": 5}}')
        await running.until_db(lambda: WebSocketState.objects.get().complete, "the fetch brought it")
        await running.until_db(lambda: _later_than(stood), "As-Of moves again")
        assert await running.ask(SyncRun.objects.count) == 1


async def test_sync_without_any_readable_record_fails_its_command_and_does_not_loop() -> None:
    async with live(5) as (server, running):
        spoil(server)
        answer = await running.command(Command.Action.SYNC)
        assert answer.state == "failed"
        assert answer.result["detail"].startswith("The full sync failed: none of the 5 listed skills can be read.")
        pages = len(server.requests)
        await running.until_it_follows()
        assert len(server.requests) == pages, "it is not read again before the next poll"
        assert await records_check(running) == ("unhealthy", {"refused": 5, "share": 1.0})


async def test_empty_catalogue_is_not_an_unreadable_one() -> None:
    async with marketplace(skills=0) as server, mirror(server) as running:
        await running.until_state("live")
        assert (await sync(running)).state == "done"
        server.market.categories["automation"]["name"] = ["no text"]
        assert (await sync(running)).state == "degraded"
        found = await running.difference()
        assert (found.in_sync, len(found.refused)) == (False, 1)


async def test_api_shows_a_degraded_run() -> None:
    async with live(5) as (server, running):
        spoil(server, 1)
        run = await sync(running)

        def answers() -> tuple[dict[str, Any], dict[str, Any]]:
            client = agent()
            return client.get(f"/api/admin/sync/runs/{run.pk}/").json(), client.get("/api/admin/sync/status/").json()

        shown, status = await running.ask(answers)
        assert (shown["state"], shown["degraded"], shown["refused"]) == ("degraded", True, 1)
        assert status["last"]["id"] == status["last_done"]["id"] == run.pk


@pytest.mark.parametrize(
    ("read", "refused", "categories", "refused_categories", "expected"),
    [
        (5000, 0, 10, 0, "healthy"), (4999, 1, 10, 0, "healthy"), (99, 1, 10, 0, "degraded"),
        (4, 1, 10, 0, "degraded"), (76, 24, 10, 0, "degraded"), (75, 25, 10, 0, "unhealthy"),
        (0, 5000, 10, 0, "unhealthy"), (5000, 0, 10, 10, "unhealthy"), (5000, 0, 200, 1, "healthy"),
    ],
)  # fmt: skip
def test_health_depends_on_the_share_of_refused_records(
    read: int, refused: int, categories: int, refused_categories: int, expected: str
) -> None:
    now = timezone.now()
    SyncRun.objects.create(
        reason="poll", state="degraded", is_clean=True, started_at=now - timedelta(seconds=5), finished_at=now,
        listed=read + refused, unchanged=read, refused=refused + refused_categories, listed_categories=categories,
        refused_categories=refused_categories,
    )  # fmt: skip
    # A run that could not read anything does not show the state of the records.
    SyncRun.objects.create(reason="poll", state="failed", error="away", started_at=now, finished_at=now)
    assert judge(read_facts(), SyncConfig()).checks["records"].status == expected


def _later_than(moment: Any) -> bool:
    as_of = freshness().as_of
    return as_of is not None and as_of > moment
