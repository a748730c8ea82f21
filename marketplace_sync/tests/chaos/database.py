"""A temporary database for the campaign, and the troubles that it can have."""

import contextlib
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

# The application name of the connections that troubles affect; libpq takes it from the environment of a daemon.
DAEMONS = "chaos-daemon"
_TABLES = (
    "heldremoval", "syncrun", "command", "deadletter", "change", "tombstone", "skill", "category", "websocketstate",
    "standby", "lease",
)  # fmt: skip
# Troubles overlap, and two ALTER DATABASE at the same time end in "tuple concurrently deleted".
_altering = threading.Lock()


@dataclass(frozen=True, slots=True)
class Scratch:
    """`url` as `DATABASE_URL` has it. `port` of the server; 0: a file, and no network to it."""

    url: str
    port: int

    @property
    def postgres(self) -> bool:
        return self.port != 0

    def _connect(self) -> "psycopg.Connection":
        # This connection can write while `read_only` is on for all others.
        writing = "-c default_transaction_read_only=off"
        return psycopg.connect(self.url, autocommit=True, connect_timeout=10, options=writing)

    def lock(self, what: str, seconds: float) -> None:
        """Keep a lock for `seconds`: on the lease's row, the skills' table, or the whole SQLite file.

        On PostgreSQL a daemon that takes over an expired lease ends every connection that has locked its row: this too.
        """
        if self.postgres:
            with contextlib.suppress(psycopg.OperationalError), self._connect() as own, own.transaction():
                if what == "lease":
                    own.execute("SELECT 1 FROM marketplace_sync_lease FOR UPDATE")
                else:
                    own.execute("LOCK TABLE marketplace_sync_skill IN ACCESS EXCLUSIVE MODE")
                time.sleep(seconds)
            return
        file = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
        with contextlib.closing(file):
            file.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            file.execute("ROLLBACK")

    def terminate(self) -> None:
        """End every connection of the daemons, as a restarting server does."""
        with self._connect() as own:
            own.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s",
                [DAEMONS],
            )

    def read_only(self, on: bool) -> None:
        """Let no new connection write, and end those that can; or allow writing again."""
        with _altering, self._connect() as own:
            name = own.info.dbname
            if on:
                own.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
                self.terminate()
            else:
                own.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    def empty(self) -> None:
        """Empty the tables, as after `migrate`. No daemon may be running."""
        tables = [f"marketplace_sync_{name}" for name in _TABLES]
        if self.postgres:
            with self._connect() as own:
                own.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY")
            return
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)) as file, file:
            for table in tables:
                file.execute(f"DELETE FROM {table}")


@contextlib.contextmanager
def scratch(url: str) -> Iterator[Scratch]:
    """Create a database: a file where `url` is "sqlite", else one on that PostgreSQL server. Remove it afterwards."""
    if url.startswith("sqlite"):
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            yield Scratch(f"sqlite:///{Path(folder) / 'mirror.sqlite3'}", 0)
        return
    parts = urlsplit(url)
    name = f"chaos_{os.getpid()}"
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as own:
        own.execute(f'CREATE DATABASE "{name}"')
    try:
        yield Scratch(urlunsplit(parts._replace(path=f"/{name}")), parts.port or 5432)
    finally:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as own:
            own.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
