"""Backup and restore as `docs/operations.md` has them: taken while the daemon runs, put back, level again."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.db import connection

from marketplace_sync.live.feed import newest_seq
from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.support.harness import marketplace, skill
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import MANAGE, Environment, Programs, programs, settings_for, until

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (MANAGE.parent / "docs" / "operations.md").read_text()


def documented(beginning: str) -> str:
    """Return the command of the page that begins with this text, its lines joined."""
    text = re.sub(r"\\\n\s*", "", PAGE)
    found = re.search(rf"^ *\$ ({re.escape(beginning)}.*)", text, re.MULTILINE)
    assert found, beginning
    return found[1]


def carry_out(command: str, **variables: str) -> None:
    words = shlex.split(command)
    if words[0] != "python" and shutil.which(words[0]) is None:
        without_service(words[0])
    ended = subprocess.run(
        ["bash", "-euc", command], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def back_up(url: str, to: Path) -> None:
    if connection.vendor == "postgresql":
        command = documented("pg_dump --format=custom").replace("mirror-$(date +%F).dump", str(to))
        carry_out(command, DATABASE_URL=url)
    else:
        command = documented("python -c 'import sqlite3").replace("mirror-$(date +%F).sqlite3", str(to))
        command = command.replace(" db.sqlite3 ", f" {url.removeprefix('sqlite:///')} ")
        carry_out(command.replace("python", sys.executable, 1))


@pytest.fixture
def elsewhere(program_environment: Environment, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database to restore into; on PostgreSQL it exists and is empty."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path}/restored.sqlite3"
        return
    url = program_environment()["DATABASE_URL"]
    name = f"{connection.settings_dict['NAME']}_restored"
    server = urlunsplit(urlsplit(url)._replace(path="/postgres"))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def put_back(backup: Path, url: str) -> None:
    if connection.vendor == "postgresql":
        carry_out(documented("pg_restore --no-owner").replace("FILE", str(backup)), DATABASE_URL=url)
    else:
        shutil.copy(backup, url.removeprefix("sqlite:///"))


async def test_a_restored_backup_ends_in_sync(program_environment: Environment, elsewhere: str, tmp_path: Path) -> None:
    async with marketplace(30) as server:
        environment = program_environment(**settings_for(server))
        with programs(environment) as started:
            daemon = started.start("runsync")
            await daemon.prints("state=live")
            back_up(environment["DATABASE_URL"], tmp_path / "backup")
            before = await ask(newest_seq)
            for number in range(40, 45):
                server.market.put_skill(skill(number))
            server.market.delete_skill(skill(3)["skill_id"])

            async def changed() -> bool:
                return await ask(newest_seq) >= before + 6

            await until(changed, "the mirror has changed since the backup")
            newest = await ask(newest_seq)
        put_back(tmp_path / "backup", elsewhere)
        with programs({**environment, "DATABASE_URL": elsewhere}) as started:
            assert (await started.run("migrate", "--verbosity=0")).status == 0
            # What the backup does not have is missing until the first full sync.
            assert (await started.run("verifysync")).status == 1
            begun = await restarted(started)
            assert begun > newest
            assert (await started.run("runsync", "--once")).status == 0
            verified = await started.run("verifysync")
            assert (verified.status, verified.out) == (0, "In sync with the marketplace.\n")


async def restarted(started: Programs) -> int:
    """Restart the feed and return its number. The daemon of the backup counts as alive until its lease has expired."""
    ended = await started.run("restartfeed")
    while ended.status != 0:
        assert "Stop every runsync first" in ended.err
        ended = await started.run("restartfeed")
    found = re.search(r"after (\d+)", ended.out)
    assert found is not None
    return int(found[1])
