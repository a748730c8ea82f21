"""`/metrics` of a real daemon and the real tables: complete from the start, exact, bounded, true whatever has died."""

import json
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.test import Client

from marketplace_sync.api import authentication
from marketplace_sync.daemon import publisher
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.metrics import FEED_SERVER_SECONDS, decided_since, save_feed_server
from marketplace_sync.models import AuditRow, Command, DaemonMetrics, FeedServer, WebSocketState
from marketplace_sync.tests.support.api_actors import EVERYONE, Who, agent
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.tests.support.live_feed import agent_key, ask, messages_until, new_pen, put, web
from marketplace_sync.tests.support.processes import until
from marketplace_sync.tests.support.scrapes import Scrape, forget_answers, scrape

pytestmark = pytest.mark.django_db(transaction=True)

SKILLS, SKILL = "/api/v1/skills", "/api/v1/skills/{skill_id}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(publisher, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(publisher, "COUNT_EVERY_SECONDS", 0.05)
    settings.METRICS_PUBLIC = "true"
    forget_answers()
    authentication.failed_keys.clear()


async def shown_by(running: Mirror, true: Callable[[Scrape], bool], what: str) -> Scrape:
    """Return the first scrape for which `true` is fulfilled; the daemon writes its part periodically."""
    found: list[Scrape] = []

    async def fulfilled() -> bool:
        found.append(await running.ask(scrape, Client()))
        return bool(found[-1].of_the_daemon) and true(found[-1])

    await running.until(fulfilled, what)
    return found[-1]


def settled(now: Scrape) -> float:
    """How many messages have come to their end, by what the daemon shows."""
    return sum(value for (name, _), value in now.values.items() if name == "atom_mirror_messages_total")


async def test_messages_are_counted_by_type_and_outcome() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.put_skill(skill(100))
        server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
        server.market.delete_skill("skill-00002")
        server.market.rate("skill-00003", 5)
        server.market.put_category({"name": "automation", "description": "Changed."})
        server.send_raw(json.dumps({"type": "skill_update", "data": {"skill_id": "skill-00004", "name": ""}}))
        server.send_raw(json.dumps({"type": "skill_explode", "data": {}}))
        old = {"skill_id": "skill-00005", "name": "Old", "updated_at": "2025-01-01T00:00:00Z"}
        server.send_raw(json.dumps({"type": "skill_update", "data": old}))
        now = await shown_by(running, lambda now: settled(now) == 8, "all messages are settled")
        assert now("messages_received_total") == 8
        assert {
            (labels["type"], labels["outcome"]): value
            for (name, pairs), value in now.values.items()
            if name == "atom_mirror_messages_total" and value and (labels := dict(pairs))
        } == {
            ("skill_update", "applied"): 2, ("skill_update", "rejected"): 1, ("skill_update", "stale"): 1,
            ("skill_delete", "applied"): 1, ("rating_update", "applied"): 1, ("category_update", "applied"): 1,
            ("other", "rejected"): 1,
        }  # fmt: skip
        assert now("dead_letters_total", source="stream", code="blank") == 1
        assert now("dead_letters_total", source="stream", code="unknown_type") == 1
        assert now("dead_letters_open") == 2
        assert now("batch_items_sum") >= 25 + 1 + 8
        assert now("batch_duration_seconds_count") > 0
        # Every batch that changed something was late by some time, and by little: it was made here.
        assert 0 < now("lag_seconds_count") == now("lag_seconds_bucket", le="300.0")
        assert now("feed_changes_total") >= 25 + 5
        # The state row is at most a second behind.
        await shown_by(
            running,
            lambda now: now("last_message_timestamp_seconds") > now("last_connected_timestamp_seconds") > 0,
            "the time of the message is shown",
        )


async def test_a_message_that_is_shed_is_counted_by_its_type() -> None:
    async with marketplace() as server, mirror(server, rate_limit=1.0) as running:
        await running.until_state("live")
        for number in range(5):
            server.market.put_skill(skill(number, name=f"New {number}"))
        server.market.delete_skill("skill-00020")
        now = await shown_by(running, lambda now: settled(now) == 6, "all messages are settled")
        assert now("messages_total", type="skill_update", outcome="shed") == 4
        assert now("messages_total", type="skill_delete", outcome="shed") == 1


async def test_full_syncs_and_requests_are_counted_with_their_duration() -> None:
    async with marketplace() as server, mirror(server, page_size=10, requests_per_minute=1000) as running:
        await running.until_state("live")
        now = await shown_by(running, lambda now: now("syncs_total", outcome="clean") == 1, "the sync is counted")
        assert (now("sync_pages_total"), now("sync_skills_total", effect="created")) == (3, 25)
        assert now("sync_duration_seconds_count") == 1
        assert now("last_clean_sync_timestamp_seconds") > 0
        assert now("requests_total", path=SKILLS, status="200") == 3
        assert now("request_duration_seconds_count", path=SKILLS) == 3
        assert now("request_budget_left") == 1000 - 4
        assert (now("catalogue_skills"), now("catalogue_categories")) == (25, 1)
        assert now("sync_interval_seconds") == 900
        server.faults.add("redirect")  # no status that is worth another try, and none that docs/protocol.md names
        await running.command(Command.Action.SYNC)
        now = await shown_by(
            running, lambda now: now("commands_ended_total", action="sync", state="failed") == 1, "it has failed"
        )
        assert now("syncs_total", outcome="failed") >= 1
        assert now("requests_total", path="/api/v1/categories", status="3xx") >= 1
        assert now("token_refused", interface="api") == 0
        server.faults.clear()
        server.faults.add("unauthorized")
        await running.command(Command.Action.SYNC)
        now = await shown_by(running, lambda now: now("token_refused", interface="api") == 1, "the token is refused")
        assert now("token_refused", interface="stream") == 0
        await server.drop_connections()
        await shown_by(
            running, lambda now: now("token_refused", interface="stream") == 1, "the stream's token is refused"
        )
        server.faults.clear()
        await running.command(Command.Action.RECONNECT)
        await running.command(Command.Action.SYNC)
        await shown_by(
            running,
            lambda now: now("token_refused", interface="api") + now("token_refused", interface="stream") == 0,
            "it is good",
        )


async def test_a_budget_without_a_limit_is_infinite() -> None:
    async with marketplace() as server, mirror(server) as running:
        now = await shown_by(running, lambda _: True, "the daemon has written")
        assert now("request_budget_left") == math.inf


async def test_state_and_its_changes_are_in_the_metrics() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        await running.command(Command.Action.DISABLE)
        await running.until_state("disabled")
        now = await shown_by(
            running, lambda now: now("commands_ended_total", action="disable", state="done") == 1, "it is disabled"
        )
        states = [state for state in WebSocketState.State.values if now("connection_state", state=state)]
        assert states == ["disabled"]
        assert now("connection_state_changes_total", state="live") == 1
        assert now("connection_state_changes_total", state="disabled") == 1
        assert (now("connection_enabled"), now("connection_fallback"), now("daemon_up")) == (0, 0, 1)


async def test_new_daemon_counts_from_0_without_the_old_metrics() -> None:
    async with marketplace() as server:
        async with mirror(server) as running:
            await running.until_state("live")
            server.market.put_skill(skill(100))
            first = await shown_by(running, lambda now: settled(now) == 1, "a message is counted")
        # It has stopped: its metrics are still stored, but no longer served.
        stopped = await ask(scrape, Client())
        assert (stopped("daemon_up"), stopped.of_the_daemon) == (0, "")
        assert stopped("connection_state", state="not_running") == 1
        assert (await ask(DaemonMetrics.objects.get)).text != ""
        async with mirror(server) as running:
            second = await shown_by(running, lambda _: True, "the new daemon has written")
            assert second("lease_epoch") == first("lease_epoch") + 1
            assert settled(second) == 0
            assert second("messages_received_total") == 0


def test_decisions_are_counted_once() -> None:
    since, none = decided_since(None)
    assert not none
    for age, outcome in ((3600, "refused"), (6, "refused"), (6, "performed"), (0, "refused")):
        AuditRow.objects.create(
            at=database_now() - timedelta(seconds=age), actor="a", actor_kind="agent", verb="sync",
            allowed=outcome != "refused", outcome=outcome,
        )  # fmt: skip
    until, counted = decided_since(since - timedelta(seconds=30))
    assert counted == {"refused": 1, "performed": 1}
    again, counted = decided_since(until)
    assert (again >= until, counted) == (True, {})


async def test_refused_actions_are_in_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace_sync.mirror.metrics._AUDIT_SETTLES", timedelta(0))
    async with marketplace() as server, mirror(server) as running:
        await shown_by(running, lambda _: True, "the daemon has written")
        client = await ask(agent, Maturity.STUDENT)
        answer = await ask(client.ask, "/api/admin/sync/trigger/")
        assert answer.status_code == 403
        await shown_by(running, lambda now: now("actions_total", outcome="refused") == 1, "the refusal is counted")


# The feed's clients, of however many web processes.


async def test_feed_clients_of_all_web_processes_are_counted_while_connected() -> None:
    key = await ask(agent_key)
    limits = SubscriptionLimits(poll=0.02, gap=0.005, heartbeat=60.0, metrics_interval=0.02)
    pen = await ask(new_pen)
    await ask(pen.write, put("s1"))

    async def becomes(processes: int, clients: int) -> None:
        async def so() -> bool:
            now = await ask(scrape, Client())
            return (now("feed_processes"), now("feed_clients"), now("feed_client_lag_changes")) == (
                processes,
                clients,
                0,
            )

        # Sooner than a row that nobody takes away grows too old to count.
        await until(so, f"{clients} clients of {processes} processes", within=FEED_SERVER_SECONDS - 5)

    async with web(limits) as one, web(limits) as other:
        async with AsyncExitStack() as clients:
            for server in (one, one, other):
                await messages_until(await clients.enter_async_context(server.client(key, "?after=0")))
            await becomes(2, 3)
        await becomes(0, 0)


def test_feed_lag_is_that_of_the_slowest_client() -> None:
    save_feed_server("a:1", 3, 20)
    save_feed_server("b:1", 2, 7000)
    now = scrape(Client())
    assert (now("feed_clients"), now("feed_client_lag_changes")) == (5, 7000)
    # A process that has not reported for a while serves no client; the next report removes its row.
    FeedServer.objects.filter(name="b:1").update(seen_at=F("seen_at") - timedelta(seconds=40))
    now = scrape(Client())
    assert (now("feed_processes"), now("feed_clients"), now("feed_client_lag_changes")) == (1, 3, 20)
    save_feed_server("a:1", 3, 0)
    assert FeedServer.objects.count() == 1


# Who may look.


@pytest.mark.parametrize("who", EVERYONE, ids=[who.name for who in EVERYONE])
def test_metrics_need_a_key_or_a_login(who: Who, settings: Any) -> None:
    settings.METRICS_PUBLIC = "false"
    answer = who.make().get("/metrics")
    if who.maturity is None:
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"].startswith("Bearer")
        assert b"atom_mirror" not in answer.content
    else:
        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_public_metrics_need_no_key() -> None:
    assert Client().get("/metrics").status_code == 200
    assert Client().head("/metrics").status_code == 200
    assert Client().post("/metrics").status_code == 405
