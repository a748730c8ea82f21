"""A web process and its database: a bounded number of connections, whatever clients and server do."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

import httpx2
import pytest
from django.db import connection

from atomproject.databases import POSTGRES_POOL, for_web
from marketplace_sync.api.throttles import MAX_CONCURRENT
from marketplace_sync.tests.support.live_feed import agent_key, ask
from marketplace_sync.tests.support.outages import Doorway, doorway
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program, until

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "web-under-test"
MOST = POSTGRES_POOL["max_size"]
PATH = "/api/skills/"


class Site:
    """A web server of its own process, and agents that ask it, enough of them for `3 * MOST` requests at the same time.

    `browser` is the first of them. Those of `abort` are others: the server may be busy with them for a while.
    """

    def __init__(self, program: Program, browser: httpx2.AsyncClient, port: int, keys: list[str]) -> None:
        self.program = program
        self.browser = browser
        self.port = port
        self.keys, self.leavers = keys[::2], keys[1::2]

    async def statuses(self, requests: int) -> list[int]:
        """Return the statuses of so many simultaneous requests."""
        assert requests <= MAX_CONCURRENT * len(self.keys)
        asked = (
            self.browser.get(PATH, headers={"Authorization": f"Bearer {self.keys[number % len(self.keys)]}"})
            for number in range(requests)
        )
        answers = await asyncio.gather(*asked)
        return sorted(answer.status_code for answer in answers)

    async def abort(self, requests: int) -> None:
        """Send so many requests and disconnect before the answers."""
        for number in range(requests):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            key = self.leavers[number % len(self.leavers)]
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            await writer.drain()
            if number % 2:
                await asyncio.sleep(0.005)
            writer.transport.abort()
            del reader


@asynccontextmanager
async def site(environment: dict[str, str], **settings: str) -> AsyncIterator[Site]:
    keys = [await ask(agent_key, f"reader-{number}") for number in range(2 * ceil(3 * MOST / MAX_CONCURRENT))]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--port", str(port), "--lifespan", "off",
        "--timeout-graceful-shutdown", "2",
    ]  # fmt: skip
    program = Program(command, {**environment, **settings}, MANAGE.parent)
    try:
        await program.prints("Uvicorn running on")
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {keys[0]}"}, timeout=40,
            limits=limits, trust_env=False,
        ) as browser:  # fmt: skip
            yield Site(program, browser, port, keys)
    except BaseException:
        sys.stderr.write(f"--- the web server\n{program.out}{program.err}\n")
        raise
    finally:
        program.end()


@asynccontextmanager
async def site_behind_a_doorway(environment: dict[str, str]) -> AsyncIterator[tuple[Doorway, Site]]:
    async with doorway(environment["DATABASE_URL"]) as way:
        async with site(environment, DATABASE_URL=f"{way.url}?application_name={NAME}") as served:
            yield way, served


def sessions(where: str = "true") -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s "
            f"AND datname = current_database() AND {where}",
            [NAME],
        )
        return int(cursor.fetchone()[0])


def terminated() -> set[int]:
    """End its sessions from the server's side. Return their process ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s "
            "AND datname = current_database()",
            [NAME],
        )
        return {pid for pid, _ in cursor.fetchall()}


async def are_gone(processes: set[int]) -> None:
    assert processes
    where = f"pid IN ({', '.join(map(str, processes))})"

    async def gone() -> bool:
        return await ask(sessions, where) == 0

    await until(gone, "they are ended")


def test_sqlite_has_no_connection_pool() -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x", "OPTIONS": {}}
    assert for_web(database) == database


@pytest.mark.usefixtures("postgres")
class TestPool:
    async def test_many_requests_share_few_connections(self, program_environment: Environment) -> None:
        async with site_behind_a_doorway(program_environment()) as (_, served):
            most = 0
            asking = asyncio.create_task(served.statuses(3 * MOST))
            while not asking.done():
                most = max(most, await ask(sessions))
                await asyncio.sleep(0.01)
            assert set(await asking) == {200}
            assert 1 <= most <= MOST
            assert set(await served.statuses(MOST)) == {200}  # an agent may send 100 requests per second
            assert await ask(sessions) <= MOST
            assert await ask(sessions, "state = 'idle in transaction'") == 0

    async def test_disconnected_clients_free_their_connections(self, program_environment: Environment) -> None:
        async with site_behind_a_doorway(program_environment()) as (_, served):
            await served.abort(3 * MOST)
            assert set(await served.statuses(MOST + 10)) == {200}
            assert await ask(sessions) <= MOST

    async def test_connections_ended_by_the_server_are_not_reused(self, program_environment: Environment) -> None:
        async with site_behind_a_doorway(program_environment()) as (_, served):
            for _ in range(5):
                assert set(await served.statuses(15)) == {200}
                await are_gone(await ask(terminated))
            assert set(await served.statuses(15)) == {200}
            assert await ask(sessions) <= MOST

    async def test_unreachable_database_is_an_error_in_time_and_recovers_immediately(
        self, program_environment: Environment
    ) -> None:
        async with site_behind_a_doorway(program_environment()) as (way, served):
            assert await served.statuses(1) == [200]
            way.shut()
            began = time.monotonic()
            assert all(status >= 500 for status in await served.statuses(5))
            assert time.monotonic() - began < POSTGRES_POOL["timeout"] + 10
            way.open()

            async def answers() -> bool:
                return await served.statuses(1) == [200]

            await until(answers, "it is back")
            assert await ask(sessions) <= MOST
