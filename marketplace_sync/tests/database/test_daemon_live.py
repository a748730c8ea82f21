"""The daemon over real sockets: it catches up, stays live and reconnects."""

import asyncio
import json

import pytest

from marketplace_sync.mirror.commands import submit_command
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import Category, Command, FeedChange, Skill, SyncRun
from marketplace_sync.tests.support.harness import marketplace, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)


async def test_empty_mirror_fills_and_becomes_live() -> None:
    async with marketplace(skills=25) as server, mirror(server, page_size=10) as running:
        await running.until_state("live")
        assert await running.ask(Skill.objects.count) == 25
        assert await running.ask(Category.objects.count) == 1
        assert (await running.difference()).in_sync
        run = await running.ask(SyncRun.objects.get)
        assert (run.reason, run.state, run.created, run.pages_done, run.is_clean) == ("start", "done", 25, 3, True)


async def test_every_kind_of_live_change_arrives() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.market.put_skill(skill(100, category="new-category"))
        server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
        server.market.delete_skill("skill-00002")
        server.market.rate("skill-00003", 5)
        server.market.rate("skill-00004", 1, with_average=False)
        server.market.put_category({"name": "automation", "description": "Changed."})
        await running.until_in_sync()
        await running.until_db(lambda: state_row().received == 6, "all six are counted")
        assert (await running.status()).row.state == "live"
        renamed = await running.ask(Skill.objects.get, skill_id="skill-00001")
        assert (renamed.name, renamed.code) == ("Renamed", "def skill_1(): ...")
        kinds = set(await running.ask(lambda: list(FeedChange.objects.values_list("kind", flat=True))))
        assert kinds >= {"skill_created", "skill_updated", "skill_deleted", "rating_changed", "category_updated"}


async def test_changes_made_while_disconnected_arrive_after_reconnect() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        await server.drop_connections()
        server.market.delete_skill("skill-00001", announce=False)
        server.market.put_skill(skill(200), announce=False)
        await running.until_db(
            lambda: SyncRun.objects.filter(reason="connected", state="done").exists(),
            "a sync followed the reconnect",
        )
        await running.until_state("live")
        assert (await running.difference()).in_sync


async def test_reconnects_over_the_limit_keep_the_open_stream() -> None:
    slow = {"reconnect_delays": (1.0,), "fallback_seconds": 60.0}
    async with marketplace(connects_per_minute=10) as server, mirror(server, **slow) as running:
        await running.until_state("live")
        asked = [await running.command(Command.Action.RECONNECT) for _ in range(11)]
        assert [command.state for command in asked] == ["done"] * 9 + ["failed"] * 2
        assert "10 connection attempts in the last minute" in asked[-1].result["detail"]
        assert "Reconnect again in" in asked[-1].result["detail"]
        assert (server.clients, len(server.connects)) == (1, 10)
        # A lost stream waits for the limit as well, and the answer shows it.
        await server.drop_connections()
        await running.command(Command.Action.DISABLE)
        enabled = await running.command(Command.Action.ENABLE)
        assert "10 connection attempts" in enabled.result["detail"]
        status = await running.status()
        assert (status.row.state, status.row.next_ws_attempt_at is not None) == ("reconnecting", True)
        assert len(server.connects) == 10


async def test_unchanged_sync_writes_no_skill_row() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        before = await running.ask(lambda: list(Skill.objects.order_by("pk").values_list("pk", "synced_at")))
        seq = await running.ask(FeedChange.objects.count)
        answer = await running.command(Command.Action.SYNC)
        assert answer.state == "done"
        assert await running.ask(lambda: list(Skill.objects.order_by("pk").values_list("pk", "synced_at"))) == before
        assert await running.ask(FeedChange.objects.count) == seq


async def test_mute_peer_is_disconnected_and_reconnected() -> None:
    async with marketplace(heartbeat_interval=0) as server, mirror(server) as running:
        await running.until_state("live")
        server.faults.add("mute")
        await running.until_db(lambda: not state_row().connected, "the dead peer is noticed")
        assert "pong" in (await running.ask(state_row)).disconnect_reason
        server.faults.clear()
        await running.until_state("live")


async def test_quiet_healthy_stream_is_not_reconnected() -> None:
    async with marketplace(heartbeat_interval=0) as server, mirror(server, heartbeat_interval=0.2) as running:
        await running.until_state("live")
        await server.until(lambda: server.heard["ping"] >= 4)
        assert len(server.connects) == 1
        assert (await running.status()).row.state == "live"


async def test_three_failures_start_polling_until_the_fallback_ends() -> None:
    async with marketplace() as server, mirror(server, start=False) as running:
        server.faults.add("refuse")
        await running.start()
        await running.until_state("polling")
        row = (await running.status()).row
        assert (row.consecutive_failures, row.fallback_to_polling, row.connected) == (3, True, False)
        assert row.next_ws_attempt_at > row.fallback_started_at
        await running.until_db(lambda: Skill.objects.count() == 25, "polling fills the mirror")
        server.faults.clear()
        await running.until_state("live")
        assert (await running.status()).row.fallback_to_polling is False


async def test_suspended_stream_waits_for_a_reconnect_command() -> None:
    limits = {"fallback_seconds": 0.05, "reconnect_attempts": 5}
    async with marketplace() as server, mirror(server, start=False, **limits) as running:
        server.faults.add("accept-then-close")
        await running.start()
        await running.until_state("suspended")
        row = (await running.status()).row
        assert (row.reconnect_attempts, row.next_ws_attempt_at) == (5, None)
        server.faults.clear()
        attempts = len(server.connects)
        answer = await running.command(Command.Action.RECONNECT)
        assert (answer.state, len(server.connects)) == ("done", attempts + 1)
        await running.until_state("live")


async def test_disable_closes_the_stream_and_survives_a_restart() -> None:
    async with marketplace() as server:
        async with mirror(server) as running:
            await running.until_state("live")
            answer = await running.command(Command.Action.DISABLE)
            assert answer.state == "done"
            assert server.clients == 0
            assert (await running.status()).row.state == "disabled"
            refused = await running.command(Command.Action.RECONNECT)
            assert (refused.state, "Enable it instead" in refused.result["detail"]) == ("failed", True)
        async with mirror(server) as again:
            await again.until_state("disabled")
            await again.until_db(lambda: SyncRun.objects.filter(state="done").count() >= 2, "polling goes on")
            answer = await again.command(Command.Action.ENABLE)
            assert answer.state == "done"
            await again.until_state("live")


async def test_enable_reports_a_stream_that_is_enabled_already() -> None:
    async with marketplace() as server, mirror(server, fallback_seconds=60.0, fallback_after_failures=1) as running:
        await running.until_state("live")
        enable = await running.command(Command.Action.ENABLE)
        assert (enable.state, enable.result) == ("done", {"detail": "The stream is enabled already; it is connected."})
        assert len(server.connects) == 1
        await running.command(Command.Action.DISABLE)
        again = await running.command(Command.Action.DISABLE)
        assert again.result == {"detail": "The stream was closed already, and stays closed; polling goes on."}
        server.faults.add("refuse")
        enable = await running.command(Command.Action.ENABLE)
        assert enable.result == {"detail": "The stream is enabled; a connection attempt is under way."}
        await running.until_state("polling")
        enable = await running.command(Command.Action.ENABLE)
        assert enable.result["detail"].startswith("The stream is enabled already; it is not connected: ")
        assert " s; Reconnect begins one sooner." in enable.result["detail"]


async def test_disable_is_answered_if_enable_comes_before_the_close() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.faults.add("mute")  # closing takes long, because the peer never answers
        disable = await running.ask(submit_command, Command.Action.DISABLE, by="command line")
        enable = await running.ask(submit_command, Command.Action.ENABLE, by="command line")

        def both_done() -> bool:
            return Command.objects.filter(pk__in=(disable.pk, enable.pk), state="done").count() == 2

        await running.until_db(both_done, "both are answered")
        server.faults.clear()
        await running.until_state("live")


async def test_clean_stop_is_shown_immediately() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        await running.end()
        status = await running.status()
        assert (status.alive, status.row.state, status.row.connected) == (False, "not_running", False)
        assert server.clients == 0


async def test_stop_under_load_applies_everything_received() -> None:
    async with marketplace(skills=5) as server, mirror(server) as running:
        await running.until_state("live")
        for number in range(1000, 3000):
            server.market.put_skill(skill(number))
            if number % 50 == 0:
                await asyncio.sleep(0)
        await running.until_db(lambda: Skill.objects.count() > 100, "the load has begun")
        await running.end()
        row = await running.ask(state_row)
        assert row.received > 100
        assert row.received == row.applied + row.unchanged + row.stale + row.rejected + row.shed
        assert await running.ask(Skill.objects.count) == 5 + row.applied


async def test_repeated_message_counts_as_unchanged_and_older_one_as_stale() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        newest = server.market.put_skill({"skill_id": "skill-00001", "name": "Newest"}, announce=False)
        message = {"type": "skill_update", "data": newest}
        older = {"type": "skill_update", "data": {**newest, "name": "Older", "updated_at": "2026-02-01T00:00:00Z"}}
        for each in (message, message, older):
            server.send_raw(json.dumps(each))
        await running.until_db(lambda: state_row().stale == 1, "all three are counted")
        row = await running.ask(state_row)
        assert (row.applied, row.unchanged, row.stale) == (1, 1, 1)
        assert (await running.ask(Skill.objects.get, skill_id="skill-00001")).name == "Newest"
