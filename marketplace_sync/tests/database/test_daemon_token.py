"""A token that is replaced while the daemon runs: nothing is lost, delayed by an hour or disclosed."""

from pathlib import Path

import pytest

from marketplace_sync.engine import schedule
from marketplace_sync.models import Command, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = "11111111-2222-4333-8444-555555555555", "eyJhbGciOiJIUzI1NiJ9.bmV3.c2lnbmF0dXJl"
# As in production: a test that waits for the hour fails.
HOUR = {"fallback_seconds": 3600.0, "sync_interval_seconds": 3600.0}


@pytest.fixture(autouse=True)
def _an_hour_between_failed_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY_DELAYS", (3600.0,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(f"{OLD}\n")
    return written


def replace(file: Path, token: str) -> None:
    """Replace the file atomically, as the manual asks."""
    file.with_name("next").write_text(f"{token}\n")
    file.with_name("next").replace(file)


def accept(server: SimulatorServer, token: str) -> None:
    """Let the marketplace accept only this token from now on."""
    server.token = server.api.token = token


def following(server: SimulatorServer, file: Path, **changes: object):  # type: ignore[no-untyped-def]
    return mirror(server, api_token_file=str(file), **{"api_token": "", **HOUR, **changes})


async def until_refused(running: Mirror) -> None:
    """Wait until the stream and a full sync were refused, and both wait for an hour."""
    await running.until_state("polling")
    await running.until_db(SyncRun.objects.filter(state="failed").exists, "a full sync was refused")
    assert "refuses the token" in (await running.status()).row.disconnect_reason


async def test_token_replaced_while_live_causes_no_gap_and_no_reconnect(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        replace(file, NEW)
        accept(server, NEW)
        asked = await running.command(Command.Action.SYNC)  # its first request may have been sent with the old token
        assert asked.state == "done"
        await running.until_it_follows()
        assert len(server.connects) == 1
        # The old token ends for the stream too: one attempt follows without delay, with the new token.
        server.market.put_skill(skill(101), announce=False)
        await server.drop_connections(4401)
        await running.until_db(lambda: Skill.objects.filter(skill_id="skill-00101").exists(), "the gap is closed")
        await running.until_state("live")
        assert len(server.connects) == 2
        assert not await running.ask(SyncRun.objects.exclude(state="done").exists)


async def test_close_during_token_replacement_is_not_a_refusal_of_the_new_token(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        accept(server, NEW)
        replace(file, NEW)
        await server.drop_connections(4401)
        await running.until_state("live")
        assert len(server.connects) == 2
        # It never polled: that would have begun a full sync.
        assert await running.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", flat=True))) == [
            "start",
            "connected",
        ]


async def test_new_token_ends_a_permanent_refusal_without_restart(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        accept(server, NEW)
        await server.drop_connections(4401)
        await until_refused(running)
        connects = len(server.connects)
        server.market.put_skill(skill(100), announce=False)
        replace(file, NEW)
        await running.until_state("live")
        await running.until_in_sync()
        assert len(server.connects) == connects + 1


async def test_another_bad_token_causes_one_attempt(file: Path) -> None:
    async with marketplace(token=NEW) as server, following(server, file) as running:
        await until_refused(running)
        connects = len(server.connects)
        replace(file, "33333333-bad")
        await until(lambda: len(server.connects) == connects + 1, "the bad one was tried")
        await until_refused(running)
        replace(file, NEW)
        await running.until_state("live")
        assert len(server.connects) == connects + 2


async def test_new_token_ends_a_refusal_while_polling(file: Path) -> None:
    async with marketplace(token=NEW) as server, following(server, file, start=False) as running:
        await running.start(stream_wanted=False)
        await running.until_db(SyncRun.objects.filter(state="failed").exists, "the full sync was refused")
        replace(file, NEW)
        await running.until_db(SyncRun.objects.filter(state="done").exists, "a full sync has succeeded")
        assert server.connects == []


async def test_emptied_token_file_changes_nothing(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        replace(file, "")
        assert (await running.command(Command.Action.SYNC)).state == "done"
        await server.drop_connections(1000)
        await until(lambda: len(server.connects) == 2, "it has come back")
        await running.until_state("live")
