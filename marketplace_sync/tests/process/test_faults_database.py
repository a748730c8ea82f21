"""The database in trouble: the daemon waits and catches up, or ends with an error. Nothing is lost, nothing grows."""

import asyncio
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.db import connection

from marketplace_sync.mirror.lease import LEASE_SECONDS
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import Command, LeaseRow, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import PATIENCE, Mirror, age_the_lease, marketplace, mirror, skill
from marketplace_sync.tests.support.outages import Doorway, doorway, locked_database, own_postgres
from marketplace_sync.tests.support.processes import (
    MANAGE,
    Environment,
    Program,
    Programs,
    mirrored,
    programs,
    settings_for,
    until,
    until_live,
)
from marketplace_sync.tests.support.truth import from_the_truth, in_the_feed

pytestmark = pytest.mark.django_db(transaction=True)

# The daemon's application name, where a test counts its connections: writer, planner, lease, control.
NAME = "daemon-under-test"
CONNECTIONS = 4
# An exit with an error is in time if it comes this long after the patience is over.
EXIT_WITHIN = 8.0


def impatient(start: Programs, seconds: float, **settings: object) -> Program:
    """Start a `runsync` that waits only so long for its database."""
    environment = {**start.environment, **{name: str(value) for name, value in settings.items()}}
    command = [sys.executable, "-m", "marketplace_sync.tests.support.impatient", str(seconds), "runsync"]
    program = Program(command, environment, MANAGE.parent)
    start.started.append(program)
    return program


async def runs(watched: Mirror) -> list[str]:
    return await watched.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", flat=True)))


async def nothing_is_lost(watched: Mirror, server: SimulatorServer, *, passes: int = 1) -> None:
    """Wait until mirror and feed are in sync, by the stream alone: one connection, and only the first full sync."""
    await until(lambda: in_sync(watched, server), "the mirror has everything that was sent")
    assert await watched.ask(in_the_feed) == []
    assert len(await runs(watched)) == passes
    assert len(server.connects) == 1


async def in_sync(watched: Mirror, server: SimulatorServer) -> bool:
    return not await watched.ask(from_the_truth, server.market)


async def talk(server: SimulatorServer, first: int, count: int) -> None:
    """Send new skills and changed ones, with a pause between them."""
    for number in range(first, first + count):
        server.market.put_skill(skill(number))
        server.market.put_skill({"skill_id": f"skill-{number % 20:05}", "name": f"Changed {number}"})
        await server.drain()
        await asyncio.sleep(0.002)


class TestLocked:
    async def test_lock_longer_than_the_lease_loses_no_change_and_no_pong(
        self, program_environment: Environment
    ) -> None:
        quick = {"ATOM_SAAS_WS_HEARTBEAT_INTERVAL": 1.0, "ATOM_SAAS_WS_PONG_TIMEOUT": 0.9}
        async with mirrored(program_environment, **quick) as (server, watched, start):
            daemon = start.start("runsync")
            await until_live(watched, daemon)
            epoch = (await watched.ask(LeaseRow.objects.get)).epoch
            server.heartbeat_interval = 1.0
            with locked_database():
                until_then = time.monotonic() + LEASE_SECONDS
                number = 100
                while time.monotonic() < until_then:
                    await talk(server, number, 10)
                    number += 10
                    await asyncio.sleep(0.15)  # 100 messages per second, so that the simulator too has time for pongs
            await nothing_is_lost(watched, server)
            assert daemon.running and (await watched.ask(LeaseRow.objects.get)).epoch == epoch
            await watched.until_state("live")

    async def test_lock_beyond_the_patience_ends_the_daemon_with_an_error(
        self, program_environment: Environment
    ) -> None:
        async with mirrored(program_environment) as (server, watched, start):
            daemon = impatient(start, 2.0)
            await until_live(watched, daemon)
            with locked_database():
                await ends_loudly(daemon, 2.0)
            await watched.ask(age_the_lease, LEASE_SECONDS)  # which it could not release
            server.market.put_skill(skill(500))
            await until_live(watched, after := start.start("runsync"))
            assert await in_sync(watched, server) and after.running


async def ends_loudly(daemon: Program, patience: float) -> str:
    """Expect exit status 1 and one line that names the database, without a traceback. Return the line."""
    began = time.monotonic()
    ended = await daemon.ended()
    assert time.monotonic() - began < patience + EXIT_WITHIN
    assert ended.status == 1
    assert "Traceback" not in ended.err
    line = ended.err.rstrip().splitlines()[-1]
    assert "the database does not answer" in line, ended.err
    return line


def sqlite_of(url: str, *, pages: int) -> str:
    """Return the settings of the same file, which is full at so many pages for this program."""
    pragmas = f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA max_page_count={pages};"
    return f"{url}?init_command={quote(pragmas)}"


@pytest.mark.usefixtures("sqlite")
class TestFull:
    """SQLite counts its pages as a disk does its blocks. PostgreSQL's 53100 is an OperationalError like others."""

    async def test_daemon_waits_for_disk_space_and_loses_nothing(
        self, program_environment: Environment, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path / 'full.sqlite3'}"
        async with marketplace(skills=20) as server:
            with programs({**program_environment(**settings_for(server)), "DATABASE_URL": url}) as start:
                pages = await migrated_with_filler(start, tmp_path / "full.sqlite3")
                daemon = start.start("runsync", DATABASE_URL=sqlite_of(url, pages=pages + 60))
                await daemon.prints("state state=live")
                for number in range(100, 150):
                    server.market.put_skill(skill(number, description="x" * 10_000))
                await daemon.prints("database or disk is full")
                assert (await start.run("verifysync")).status == 1, "it was not full"
                assert daemon.running
                with closing(sqlite3.connect(tmp_path / "full.sqlite3", timeout=20)) as other:
                    other.execute("DROP TABLE filler")
                await until(lambda: is_verified(start), "there is room again")
                assert daemon.running and len(server.connects) == 1
                daemon.send(signal.SIGTERM)
                assert (await daemon.ended()).status == 0

    async def test_full_disk_beyond_the_patience_ends_the_daemon_and_the_next_one_catches_up(
        self, program_environment: Environment, tmp_path: Path
    ) -> None:
        url = f"sqlite:///{tmp_path / 'full.sqlite3'}"
        async with marketplace(skills=20) as server:
            with programs({**program_environment(**settings_for(server)), "DATABASE_URL": url}) as start:
                pages = await migrated_with_filler(start, tmp_path / "full.sqlite3")
                # Long enough for a slow machine to try more than once: the last error is the one that is shown.
                daemon = impatient(start, 5.0, DATABASE_URL=sqlite_of(url, pages=pages + 60))
                await daemon.prints("state state=live")
                for number in range(100, 150):
                    server.market.put_skill(skill(number, description="x" * 10_000))
                await daemon.prints("database_retry")
                assert "database or disk is full" in await ends_loudly(daemon, 5.0)
                end_the_lease(tmp_path / "full.sqlite3")
                await start.start("runsync").prints("state state=live")
                assert await is_verified(start)


async def migrated_with_filler(start: Programs, file: Path) -> int:
    """Create the mirror's tables, and eight megabytes that can be freed. Return the number of pages."""
    assert (await start.run("migrate", "--verbosity", "0")).status == 0
    with closing(sqlite3.connect(file)) as filling:
        filling.execute("CREATE TABLE filler (content)")
        filling.execute("INSERT INTO filler VALUES (zeroblob(8000000))")
        filling.commit()
        return int(filling.execute("PRAGMA page_count").fetchone()[0])


def end_the_lease(file: Path) -> None:
    """Age the lease: a full database does not let a daemon release it at its end."""
    with closing(sqlite3.connect(file, timeout=20)) as database:
        database.execute("UPDATE marketplace_sync_lease SET renewed_at = '2026-01-01 00:00:00'")
        database.commit()


async def is_verified(start: Programs) -> bool:
    return (await start.run("verifysync")).status == 0


@asynccontextmanager
async def through_a_doorway(
    environment: dict[str, str], server: SimulatorServer
) -> AsyncIterator[tuple[Doorway, Programs]]:
    """Yield programs that reach the tests' PostgreSQL over a proxy of their own, under a name of their own."""
    async with doorway(environment["DATABASE_URL"]) as way:
        url = f"{way.url}?application_name={NAME}"
        with programs({**environment, **settings_for(server), "DATABASE_URL": url}) as start:
            yield way, start


def sessions(where: str = "true") -> int:
    """Return how many connections the daemon has."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s "
            f"AND datname = current_database() AND {where}",
            [NAME],
        )
        return int(cursor.fetchone()[0])


def terminate() -> int:
    """End the daemon's sessions from the server's side. Return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s "
            "AND datname = current_database()",
            [NAME],
        )
        return int(cursor.fetchone()[0])


@pytest.mark.usefixtures("postgres")
class TestPostgres:
    async def test_terminated_backends_lose_nothing(self, program_environment: Environment) -> None:
        async with marketplace() as server, mirror(server, start=False) as watched:
            async with through_a_doorway(program_environment(), server) as (_, start):
                daemon = start.start("runsync")
                await until_live(watched, daemon)
                number, ended = 100, 0
                while ended < 15:  # it returns more slowly each time, up to every 2 s
                    await talk(server, number, 10)
                    number += 10
                    ended += await watched.ask(terminate)
                    assert await watched.ask(sessions) <= CONNECTIONS
                await nothing_is_lost(watched, server)
                assert daemon.running and await watched.ask(sessions) <= CONNECTIONS

    async def test_commit_with_a_lost_answer_is_applied_exactly_once(self, program_environment: Environment) -> None:
        async with marketplace() as server, mirror(server, start=False) as watched:
            async with through_a_doorway(program_environment(), server) as (way, start):
                daemon = start.start("runsync")
                await until_live(watched, daemon)
                for round_number in range(8):
                    way.doubts += 2
                    await talk(server, 100 + 10 * round_number, 10)
                    await until(lambda: in_sync(watched, server), "the mirror has everything that was sent")
                    # The next commit, except for a renewal, is its acceptance: it is executed although that answer is
                    # lost.
                    way.doubts += 2
                    answer = await watched.command(Command.Action.SYNC)
                    assert answer.state == "done", answer.result
                await until(lambda: not way.doubts, "every doubt was sown")
                await until(lambda: in_sync(watched, server), "the mirror has everything that was sent")
                assert await watched.ask(in_the_feed) == []
                assert daemon.running
                row = await watched.ask(state_row)
                assert row.received == row.applied + row.unchanged + row.stale

    async def test_failover_to_read_only_is_waited_for(self, program_environment: Environment) -> None:
        async with marketplace() as server, mirror(server, start=False) as watched:
            async with through_a_doorway(program_environment(), server) as (_, start):
                daemon = start.start("runsync")
                await until_live(watched, daemon)
                async with read_only(watched):
                    await talk(server, 100, 10)
                    await daemon.prints("database_retry.*read-only")
                    assert daemon.running
                await nothing_is_lost(watched, server)
                assert daemon.running and await watched.ask(sessions) <= CONNECTIONS
                await watched.until_state("live")

    async def test_read_only_beyond_the_patience_ends_the_daemon_with_an_error(
        self, program_environment: Environment
    ) -> None:
        async with marketplace() as server, mirror(server, start=False) as watched:
            async with through_a_doorway(program_environment(), server) as (_, start):
                # Long enough for a slow machine to try more than once: the last error is the one that is shown.
                daemon = impatient(start, 5.0)
                await until_live(watched, daemon)
                async with read_only(watched):
                    assert "read-only" in await ends_loudly(daemon, 5.0)
                    # A daemon that starts, or stands by, has the same trouble and ends with the same error.
                    assert "read-only" in await ends_loudly(impatient(start, 5.0), PATIENCE)

    async def test_silent_server_ends_the_daemon_in_time_also_at_a_stop(self, program_environment: Environment) -> None:
        async with marketplace() as server, mirror(server, start=False) as watched:
            async with through_a_doorway(program_environment(), server) as (way, start):
                daemon = impatient(start, 2.0)
                await until_live(watched, daemon)
                way.silence()
                began = time.monotonic()
                ended = await daemon.ended()
                assert time.monotonic() - began < 2.0 + EXIT_WITHIN
                assert ended.status == 1
                assert "the database does not answer" in ended.err
                way.open()

                await watched.ask(LeaseRow.objects.update, holder="", renewed_at=None)
                patient = start.start("runsync")
                await until_live(watched, patient)
                way.silence()
                patient.send(signal.SIGTERM)
                began = time.monotonic()
                assert (await patient.ended()).status == 1
                assert time.monotonic() - began < 5.5

    async def test_short_outage_loses_nothing_and_long_outage_ends_the_daemon(
        self, program_environment: Environment
    ) -> None:
        async with marketplace() as server:
            with own_postgres() as postgres:
                environment = {**program_environment(**settings_for(server)), "DATABASE_URL": postgres.url}
                with programs(environment) as start:
                    assert (await start.run("migrate", "--verbosity", "0")).status == 0
                    daemon = impatient(start, 30.0)
                    await daemon.prints("state state=live")
                    for how in ("immediate", "fast"):
                        await asyncio.to_thread(postgres.stop, how)
                        await talk(server, 100, 100)
                        await daemon.prints("database_retry")
                        await asyncio.to_thread(postgres.start)
                        await until(lambda: is_verified(start), "all is written")
                    assert daemon.running and len(server.connects) == 1
                    with psycopg.connect(postgres.url, autocommit=True) as asking:
                        passes = asking.execute("SELECT count(*) FROM marketplace_sync_syncrun").fetchone()
                        others = asking.execute(
                            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                        ).fetchone()
                    assert passes == (1,)
                    assert others is not None and others[0] <= CONNECTIONS + 1
                    daemon.send(signal.SIGTERM)
                    assert (await daemon.ended()).status == 0

                    last = impatient(start, 2.0)
                    await last.prints("state state=live")
                    await asyncio.to_thread(postgres.stop, "immediate")
                    await ends_loudly(last, 2.0)


@asynccontextmanager
async def read_only(watched: Mirror) -> AsyncIterator[None]:
    """Act as a failover to a replica: every new session may only read, and the old ones end."""

    def switch(setting: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'ALTER DATABASE "{connection.settings_dict["NAME"]}" {setting}')

    await watched.ask(switch, "SET default_transaction_read_only = on")
    try:
        await watched.ask(terminate)
        yield
    finally:
        await watched.ask(switch, "RESET default_transaction_read_only")
