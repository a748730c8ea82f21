"""Databases in trouble, for tests: a locked one, a way to a server that fails on cue, an own PostgreSQL."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection, transaction

from marketplace_sync.models import LeaseRow
from marketplace_sync.tests.support.harness import PATIENCE


@contextmanager
def locked_database() -> Iterator[None]:
    """Keep the lock that every writing transaction needs, as another program would: nothing can be committed."""
    locked, release = threading.Event(), threading.Event()

    def keep_lock() -> None:
        try:
            with transaction.atomic():
                if connection.vendor == "postgresql":  # whose server would end a session of ours after 8 s
                    with connection.cursor() as cursor:
                        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                LeaseRow.objects.select_for_update().get(pk=1)  # on SQLite the transaction itself is the lock
                locked.set()
                release.wait(PATIENCE)
        finally:
            connection.close()

    keeper = threading.Thread(target=keep_lock)
    keeper.start()
    try:
        assert locked.wait(PATIENCE)
        yield
    finally:
        release.set()
        keeper.join()


class Doorway:
    """A way to a PostgreSQL (or a Redis), by `url`.

    `shut`: connections are aborted, new ones are refused. `silent`: connections stay open, no byte gets through.
    `doubts`: of so many commits to come the answer is lost, and the connection with it.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._inside: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._open = True
        self.doubts = 0
        self.port = 0

    @property
    def url(self) -> str:
        login, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    def shut(self) -> None:
        self._open = False
        for writer in self._inside:
            writer.transport.abort()

    def open(self) -> None:
        self._open = True
        self._passing.set()

    def silence(self) -> None:
        self._passing.clear()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        behind = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        self._inside |= {writer, behind[1]}
        lost = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._copy(reader, behind[1], lost, asks=True))
                ways.create_task(self._copy(behind[0], writer, lost, asks=False))
        except* OSError:
            pass
        finally:
            for end in (writer, behind[1]):
                self._inside.discard(end)
                end.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event, *, asks: bool
    ) -> None:
        while content := await reader.read(65_536):
            await self._passing.wait()
            if asks and self.doubts and b"COMMIT" in content:
                self.doubts -= 1
                lost.set()
            elif not asks and lost.is_set():
                raise ConnectionResetError  # the server has committed, and nobody hears of it
            writer.write(content)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def doorway(url: str) -> AsyncIterator[Doorway]:
    way = Doorway(url)
    server = await asyncio.start_server(way.forward, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        way.open()
        way.shut()
        server.close()


class OwnPostgres:
    """A PostgreSQL server with data of its own, to be stopped and started at will."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-t", "60", "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "-m", how, "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            command = ["runuser", "-u", "postgres", "--", *command]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(command, check=True, cwd=self._folder, **quiet)


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """One that runs. The test is skipped where PostgreSQL's programs are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[4].zfill(3))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        pytest.skip("PostgreSQL's own programs are needed, and not installed")
    folder = Path(tempfile.mkdtemp(prefix="mirror-postgres-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        server = OwnPostgres(Path(initdb).parent, folder)
        server.make()
        server.start()
        yield server
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop("immediate")
        shutil.rmtree(folder)
