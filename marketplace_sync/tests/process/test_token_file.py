"""A token in a file, as programs read it."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from marketplace_sync.daemon.database import Database
from marketplace_sync.engine import schedule
from marketplace_sync.models import DeadLetter
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.database.test_daemon_token import NEW, OLD, accept, replace
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.processes import Environment, programs, settings_for, until

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]


@pytest.fixture(autouse=True)
def _an_hour_between_failed_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "RETRY_DELAYS", (3600.0,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(f"{OLD}\n")
    return written


@pytest.fixture
def starts(program_environment: Environment) -> Callable[..., dict[str, str]]:
    """Return the environment of a program that reads its token from a file."""

    def environment(server: SimulatorServer, **settings: object) -> dict[str, str]:
        hour = {"ATOM_SAAS_WS_FALLBACK_SECONDS": 3600, "ATOM_SAAS_API_TOKEN": "", "LOG_LEVEL": "DEBUG"}
        return program_environment(**settings_for(server, **{**hour, **settings}))

    return environment


async def test_neither_the_old_nor_the_new_token_is_ever_shown(file: Path, starts: Environment) -> None:
    async with marketplace(token=OLD) as server, contextlib.AsyncExitStack() as ends:
        database = Database()
        ends.push_async_callback(database.close)
        with programs(starts(server, ATOM_SAAS_API_TOKEN_FILE=file)) as start:
            daemon = start.start("runsync")
            await daemon.prints("sync_ended")
            accept(server, NEW)
            await server.drop_connections(4401)
            await daemon.prints("refuses the token")
            replace(file, NEW)
            daemon.send(signal.SIGHUP)
            await daemon.prints("token_changed")
            await daemon.prints("stream_opened .*connection=[23]")
            server.send_raw(f"no {OLD} and no {NEW}")
            await until(lambda: database.control(DeadLetter.objects.exists), "what was sent is a dead letter")
            dead_letter = await database.control(DeadLetter.objects.get)
            replace(file, "")
            await daemon.prints("token_unreadable")
            daemon.send(signal.SIGTERM)
            assert (await daemon.ended()).status == 0
            replace(file, NEW)
            once = await start.run("runsync", "--once")
            checked = await start.run("verifysync")
            assert (once.status, checked.status) == (0, 0)
            output = "".join(program.out + program.err for program in start.started) + bytes(dead_letter.head).decode()
            assert " debug " in output and output.endswith("no *** and no ***")
            for part in (OLD, NEW, OLD[:12], NEW[:20], NEW[-10:]):
                assert part not in output


async def test_a_token_out_of_the_settings_file_is_looked_up_there_again(tmp_path: Path, starts: Environment) -> None:
    dotenv = tmp_path / "dotenv"
    replace(dotenv, f"ATOM_SAAS_API_TOKEN={OLD}")
    async with marketplace(token=NEW) as server:
        environment = starts(server, DJANGO_ENV_FILE=dotenv)
        del environment["ATOM_SAAS_API_TOKEN"]
        with programs(environment) as start:
            daemon = start.start("runsync")
            await daemon.prints("refuses the token")
            replace(dotenv, f"ATOM_SAAS_PAGE_SIZE=7\nATOM_SAAS_API_TOKEN='{NEW}'")
            await daemon.prints("stream_opened")
            await daemon.prints("sync_ended .*state=done")
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
