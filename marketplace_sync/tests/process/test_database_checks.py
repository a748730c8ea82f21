"""A database that cannot keep every text, and poolers before PostgreSQL: a real PgBouncer in both of its modes."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.db import connection

from marketplace_sync.models import Skill
from marketplace_sync.tests.conftest import answers, without_service
from marketplace_sync.tests.support.harness import marketplace, skill
from marketplace_sync.tests.support.processes import (
    PATIENCE,
    Environment,
    Program,
    mirrored,
    programs,
    settings_for,
    until,
    until_live,
)

Bouncer = Callable[[str], str]
SHARED = "?DISABLE_SERVER_SIDE_CURSORS=true"


@contextmanager
def bouncer(url: str, mode: str, folder: Path, port: int) -> Iterator[str]:
    """Run a PgBouncer before the server of this URL, as a user without rights; the URL through it."""
    found = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(found).exists():
        without_service("PgBouncer")
    parts = urlsplit(url)
    login = f"user={parts.username}" + (f" password={parts.password}" if parts.password else "")
    folder.chmod(0o755)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port or 5432} {login}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        f"pool_mode = {mode}\ndefault_pool_size = 20\n"
    )
    as_whom = ["-u", "nobody"] if os.geteuid() == 0 else []
    program = Program([found, *as_whom, str(folder / "pgbouncer.ini")], os.environ, folder)
    there = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(there):
            assert program.running and time.monotonic() < deadline, program.err
        yield there
    finally:
        program.end()


@pytest.mark.usefixtures("postgres")
class TestPgBouncer:
    @pytest.fixture
    def pooled(self, program_environment: Environment, tmp_path: Path, unused_tcp_port: int) -> Iterator[Bouncer]:
        url = program_environment()["DATABASE_URL"]
        with ExitStack() as stack:
            yield lambda mode: stack.enter_context(bouncer(url, mode, tmp_path, unused_tcp_port))

    @pytest.mark.parametrize(("mode", "query"), [("session", ""), ("transaction", SHARED)])
    async def test_the_daemon_mirrors_through_it(
        self, program_environment: Environment, pooled: Bouncer, mode: str, query: str
    ) -> None:
        url = pooled(mode) + query
        async with mirrored(program_environment, skills=150) as (server, watched, start):
            daemon = start.start("runsync", DATABASE_URL=url)
            await until_live(watched, daemon)
            server.market.put_skill(skill(7, name="Changed through the pooler"))

            def arrived() -> bool:
                return Skill.objects.filter(name="Changed through the pooler").exists()

            async def there() -> bool:
                return await watched.ask(arrived)

            await until(there, "the change arrives")
            assert (await start.run("verifysync", DATABASE_URL=url)).status == 0
            second = await start.run("runsync", "--once", DATABASE_URL=url)
            assert second.status == 1 and "Traceback" not in second.err
            assert "Traceback" not in daemon.err

    async def test_sessions_shared_per_transaction_are_refused_unless_the_settings_allow_them(
        self, program_environment: Environment, pooled: Bouncer
    ) -> None:
        url = pooled("transaction")
        async with marketplace(skills=1) as server:
            with programs(program_environment(**settings_for(server))) as start:
                refused = await start.run("runsync", "--once", DATABASE_URL=url)
                assert refused.status == 1
                assert "DISABLE_SERVER_SIDE_CURSORS" in refused.err and "Traceback" not in refused.err
                checked = await start.run("check", "--database", "default", DATABASE_URL=url)
                assert checked.status == 1 and "marketplace_sync.E097" in checked.err
                warned = await start.run("check", "--database", "default", DATABASE_URL=url + SHARED)
                assert warned.status == 0 and "marketplace_sync.W097" in warned.err
                assert "SET lock_timeout = '20s'" in warned.err


@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
async def test_a_database_without_every_character_is_refused(program_environment: Environment, encoding: str) -> None:
    parts = urlsplit(program_environment()["DATABASE_URL"])
    server_url = urlunsplit(parts._replace(path="/postgres"))
    name = f"{connection.settings_dict['NAME']}_{encoding.lower()}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        async with marketplace(skills=1) as server:
            url = urlunsplit(parts._replace(path=f"/{name}"))
            with programs(program_environment(**settings_for(server, DATABASE_URL=url))) as start:
                migrated = await start.run("migrate")
                assert migrated.status == 1 and "marketplace_sync.E096" in migrated.err
                # One that was made by an older release.
                assert (await start.run("migrate", "--skip-checks", "--verbosity=0")).status == 0
                for command, status in (("runsync", 1), ("verifysync", 2)):
                    ended = await start.run(command)
                    assert ended.status == status
                    assert encoding in ended.err and "ENCODING 'UTF8'" in ended.err
    finally:
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.usefixtures("sqlite")
async def test_an_sqlite_file_in_utf_16_is_refused(program_environment: Environment, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "wide.sqlite3") as file:
        file.execute("PRAGMA encoding = 'UTF-16'")
        file.execute("CREATE TABLE x (y)")
    file.close()
    with programs(program_environment(DATABASE_URL=f"sqlite:///{tmp_path}/wide.sqlite3")) as start:
        checked = await start.run("check", "--database", "default")
        assert checked.status == 1 and "marketplace_sync.E096" in checked.err
        assert "marketplace_sync.E096" not in (await start.run("check")).err
