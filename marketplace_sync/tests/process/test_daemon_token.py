"""A token that is replaced while the daemon runs: nothing is lost, nothing waits for an hour, nothing is told."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from marketplace_sync.daemon.database import Database
from marketplace_sync.engine import schedule
from marketplace_sync.models import Command, DeadLetter, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import Environment, programs, settings_for, until

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = "11111111-2222-4333-8444-555555555555", "eyJhbGciOiJIUzI1NiJ9.bmV3.c2lnbmF0dXJl"
# As in production: who waits for the hour in these tests waits in vain.
HOUR = {"fallback_seconds": 3600.0, "sync_interval_seconds": 3600.0}


@pytest.fixture(autouse=True)
def _an_hour_between_failed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY_DELAYS", (3600.0,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(f"{OLD}\n")
    return written


def replace(file: Path, token: str) -> None:
    """As one should: whole, or not at all."""
    file.with_name("next").write_text(f"{token}\n")
    file.with_name("next").replace(file)


def accept(server: SimulatorServer, token: str) -> None:
    """From now on the marketplace takes this token alone."""
    server.token = server.api.token = token


def following(server: SimulatorServer, file: Path, **changes: object):  # type: ignore[no-untyped-def]
    return mirror(server, api_token_file=str(file), **{"api_token": "", **HOUR, **changes})


async def until_refused(running: Mirror) -> None:
    """The stream and a pass were refused, and both wait for an hour."""
    await running.until_state("polling")
    await running.until_db(SyncRun.objects.filter(state="failed").exists, "a pass was refused")
    assert "refuses the token" in (await running.status()).row.disconnect_reason


async def test_a_token_replaced_while_live_makes_no_gap_and_no_reconnect(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        replace(file, NEW)
        accept(server, NEW)
        asked = await running.command(Command.Action.SYNC)  # its first request may have gone with the old one
        assert asked.state == "done"
        await running.until_it_follows()
        assert len(server.connects) == 1
        # The old one ends for the stream too: one attempt, at once, with the new one.
        server.market.put_skill(skill(101), announce=False)
        await server.drop_connections(4401)
        await running.until_db(lambda: Skill.objects.filter(skill_id="skill-00101").exists(), "the gap is closed")
        await running.until_state("live")
        assert len(server.connects) == 2
        assert not await running.ask(SyncRun.objects.exclude(state="done").exists)


async def test_a_close_in_the_instant_of_the_replacement_is_no_refusal_of_the_new_token(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        accept(server, NEW)
        replace(file, NEW)
        await server.drop_connections(4401)
        await running.until_state("live")
        assert len(server.connects) == 2
        # Not a moment of polling only: that would have begun a pass of its own.
        assert await running.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", flat=True))) == [
            "start",
            "connected",
        ]


async def test_a_permanent_refusal_is_healed_by_a_new_token_without_restart(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        accept(server, NEW)
        await server.drop_connections(4401)
        await until_refused(running)
        connects = len(server.connects)
        server.market.put_skill(skill(100), announce=False)
        replace(file, NEW)
        await running.until_state("live")
        await running.until_level()
        assert len(server.connects) == connects + 1


async def test_another_bad_token_is_one_more_attempt_and_no_more(file: Path) -> None:
    async with marketplace(token=NEW) as server, following(server, file) as running:
        await until_refused(running)
        connects = len(server.connects)
        replace(file, "33333333-bad")
        await until(lambda: len(server.connects) == connects + 1, "the bad one was tried")
        await until_refused(running)
        replace(file, NEW)
        await running.until_state("live")
        assert len(server.connects) == connects + 2


async def test_polling_alone_is_healed_as_well(file: Path) -> None:
    async with marketplace(token=NEW) as server, following(server, file, start=False) as running:
        await running.start(stream_wanted=False)
        await running.until_db(SyncRun.objects.filter(state="failed").exists, "the pass was refused")
        replace(file, NEW)
        await running.until_db(SyncRun.objects.filter(state="done").exists, "a pass went through")
        assert server.connects == []


async def test_an_emptied_file_changes_nothing(file: Path) -> None:
    async with marketplace(token=OLD) as server, following(server, file) as running:
        await running.until_state("live")
        replace(file, "")
        assert (await running.command(Command.Action.SYNC)).state == "done"
        await server.drop_connections(1000)
        await until(lambda: len(server.connects) == 2, "it has come back")
        await running.until_state("live")


# The programs.


@pytest.fixture
def starts(program_environment: Environment) -> Callable[..., dict[str, str]]:
    """The environment of a program that takes its token from a file."""

    def environment(server: SimulatorServer, **settings: object) -> dict[str, str]:
        hour = {"ATOM_SAAS_WS_FALLBACK_SECONDS": 3600, "ATOM_SAAS_API_TOKEN": "", "LOG_LEVEL": "DEBUG"}
        return program_environment(**settings_for(server, **{**hour, **settings}))

    return environment


async def test_neither_the_old_nor_the_new_token_is_ever_told(file: Path, starts: Environment) -> None:
    async with marketplace(token=OLD) as server, contextlib.AsyncExitStack() as ends:
        database = Database()
        ends.push_async_callback(database.close)
        with programs(starts(server, ATOM_SAAS_API_TOKEN_FILE=file)) as start:
            daemon = start.start("runsync")
            await daemon.says("sync_ended")
            accept(server, NEW)
            await server.drop_connections(4401)
            await daemon.says("refuses the token")
            replace(file, NEW)
            daemon.send(signal.SIGHUP)
            await daemon.says("token_changed")
            await daemon.says("stream_opened .*connection=[23]")
            server.send_raw(f"no {OLD} and no {NEW}")
            await until(lambda: database.control(DeadLetter.objects.exists), "what was sent is a dead letter")
            letter = await database.control(DeadLetter.objects.get)
            replace(file, "")
            await daemon.says("token_unreadable")
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0
            replace(file, NEW)
            once = await start.run("runsync", "--once")
            checked = await start.run("verifysync")
            assert (once.status, checked.status) == (0, 0)
            said = "".join(program.out + program.err for program in start.started) + bytes(letter.head).decode()
            assert " debug " in said and said.endswith("no *** and no ***")
            for part in (OLD, NEW, OLD[:12], NEW[:20], NEW[-10:]):
                assert part not in said


async def test_a_token_out_of_the_settings_file_is_looked_up_there_again(tmp_path: Path, starts: Environment) -> None:
    dotenv = tmp_path / "dotenv"
    replace(dotenv, f"ATOM_SAAS_API_TOKEN={OLD}")
    async with marketplace(token=NEW) as server:
        environment = starts(server, DJANGO_ENV_FILE=dotenv)
        del environment["ATOM_SAAS_API_TOKEN"]
        with programs(environment) as start:
            daemon = start.start("runsync")
            await daemon.says("refuses the token")
            replace(dotenv, f"ATOM_SAAS_PAGE_SIZE=7\nATOM_SAAS_API_TOKEN='{NEW}'")
            await daemon.says("stream_opened")
            await daemon.says("sync_ended .*state=done")
            daemon.kill()


async def test_a_file_that_is_not_there_ends_a_command_with_one_clear_line(tmp_path: Path, starts: Environment) -> None:
    async with marketplace() as server:
        with programs(starts(server, ATOM_SAAS_API_TOKEN_FILE=tmp_path / "none")) as start:
            line = (
                "ATOM_SAAS_API_TOKEN_FILE can't be read: No such file or directory. "
                "ATOM_SAAS_API_TOKEN_FILE must name a file with the token in it and nothing else, "
                "which this user may read.\n"
            )
            for arguments, status in ((("runsync",), 1), (("verifysync",), 2)):
                ended = await start.run(*arguments)
                assert (ended.status, ended.err) == (status, line)
            checked = await start.run("check")
            assert checked.status == 0 and "(marketplace_sync.W050)" in checked.err
            assert server.accepted == 0
            assert os.listdir(tmp_path) == []
