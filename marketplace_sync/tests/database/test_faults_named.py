"""Faults by the names that docs/protocol.md gives them, each against a running daemon.

Those that stand elsewhere by the same behaviour: mute (`test_daemon_live`); a change between page and stream, stale
lists, a deleted row on a cached page, missed deletes, empty, partial and shrunken listings, poison records, clocks
that are off (`test_daemon_listing`); two daemons and a paused owner (`test_faults_standby`).
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from marketplace_sync.daemon import command_desk
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import LeaseRow, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import PATIENCE, Mirror, marketplace, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)

# Seconds between two messages: the marketplace's rate is 100 per second.
PACE = 0.01
# So many pings of both sides must be answered: as many as 90 s have at 30 s each, times ten.
INTERVALS = 30


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


async def test_accept_then_close_backs_off_and_polls_until_a_stream_stays_open() -> None:
    delays = (0.1, 0.2, 0.4)
    async with (
        marketplace() as server,
        mirror(server, start=False, reconnect_delays=delays, fallback_seconds=1.0, reconnect_attempts=50) as running,
    ):
        server.faults.add("accept-then-close")
        await running.start()
        await running.until_state("polling")
        row = (await running.status()).row
        # Each was accepted, and none stayed open: three failures, further and further apart.
        assert (row.consecutive_failures, row.reconnect_attempts, row.connected) == (3, 3, False)
        first, second, third = server.connects[:3]
        assert second - first >= delays[0] and third - second >= delays[1]
        server.market.put_skill(skill(100), announce=False)
        await running.until_db(Skill.objects.filter(skill_id="skill-00100").exists, "polling goes on")
        # One attempt per hour (here per second), and a full sync at each return to polling.
        await server.until(lambda: len(server.connects) >= 5, timeout=PATIENCE)
        assert server.connects[3] - server.connects[2] >= 0.95 and server.connects[4] - server.connects[3] >= 0.95
        server.faults.clear()
        await running.until_state("live")
        assert (await running.status()).row.fallback_to_polling is False
        await running.until_in_sync()


async def test_slow_database_at_100_messages_per_second_loses_no_pong_and_no_message() -> None:
    quick = {"heartbeat_interval": 0.3, "pong_timeout": 0.25, "rate_limit": 0.0}
    async with marketplace(heartbeat_interval=0.3) as server, mirror(server, **quick) as running:
        await running.until_state("live")
        sent = 0
        pings, pongs = server.heard["ping"], server.heard["pong"]
        with busy_database():
            while min(server.heard["ping"] - pings, server.heard["pong"] - pongs) < INTERVALS:
                server.market.put_skill(skill(1000 + sent % 700, version=f"1.0.{sent}"))
                sent += 1
                await asyncio.sleep(PACE)
            assert server.clients == 1
        await running.until_db(lambda: state_row().received == sent, "all are counted")
        await running.until_in_sync()
        # Neither side closed the stream, and nothing was left to a full sync.
        assert len(server.connects) == 1
        assert await reasons(running) == ["start"]
        row = await running.ask(state_row)
        assert (row.shed, row.rejected) == (0, 0)
        assert (await running.status()).alive


@contextmanager
def busy_database() -> Iterator[None]:
    """Lock what every writing transaction needs, four fifths of the time."""
    done = threading.Event()

    def lock() -> None:
        try:
            while not done.is_set():
                with transaction.atomic():
                    LeaseRow.objects.select_for_update().get(pk=1)
                    done.wait(0.8)
                time.sleep(0.2)
        finally:
            connection.close()

    holder = threading.Thread(target=lock)
    holder.start()
    try:
        yield
    finally:
        done.set()
        holder.join()


@pytest.mark.parametrize("refusal", ["401", "close-4401"])
async def test_permanent_token_refusal_is_shown_and_ends_without_a_restart(refusal: str) -> None:
    """Here the marketplace ends it: it accepts the daemon's token again."""
    async with marketplace() as server, mirror(server, fallback_seconds=0.5) as running:
        await running.until_state("live")
        ours = server.token
        if refusal == "401":
            takes(server, "22222222-2222-4333-8444-555555555555")
        else:
            server.faults.add("close-4401")
        await server.drop_connections()
        # It polls immediately and shows the reason; it does not retry with growing delays.
        await running.until_state("polling")
        row = (await running.status()).row
        assert row.fallback_to_polling and "token" in row.disconnect_reason, row.disconnect_reason
        attempts = len(server.connects)
        server.market.put_skill(skill(100), announce=False)
        server.market.delete_skill("skill-00003", announce=False)
        if refusal == "401":
            await running.until_db(
                lambda: SyncRun.objects.filter(state="failed", error__contains="token").exists(),
                "it has the reason",
            )
            assert await running.ask(Skill.objects.count) == 25, "nothing is removed by what can't be read"
        assert len(server.connects) - attempts <= 3 + (time.monotonic() - server.connects[attempts - 1]) / 0.5

        takes(server, ours)
        server.faults.clear()
        await running.until_state("live")
        await running.until_in_sync()


def takes(server: SimulatorServer, token: str) -> None:
    """Let the marketplace accept only this token from now on."""
    server.token = server.api.token = token


async def reasons(running: Mirror) -> list[str]:
    return await running.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", flat=True)))
