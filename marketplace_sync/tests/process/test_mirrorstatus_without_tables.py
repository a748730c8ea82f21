"""`manage.py mirrorstatus` where the database file or its tables are missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace_sync.tests.support.processes import Environment, programs

pytestmark = pytest.mark.django_db


async def test_missing_file_is_not_created_and_missing_migrations_are_named(
    program_environment: Environment, tmp_path: Path
) -> None:
    missing, empty = tmp_path / "missing.sqlite3", tmp_path / "empty.sqlite3"
    empty.touch()
    with programs(program_environment()) as start:

        async def asked(path: Path, *arguments: str) -> Any:
            return await start.run("mirrorstatus", *arguments, DATABASE_URL=f"sqlite:///{path}")

        ended = await asked(missing)
        assert (ended.status, ended.out) == (2, "")
        assert "there is no database file" in ended.err and not missing.exists()
        ended = await asked(empty)
        assert ended.status == 2
        assert "manage.py migrate" in ended.err and "Traceback" not in ended.err
        ended = await asked(Path("/nowhere/at/all.sqlite3"), "--json")
        assert (ended.status, json.loads(ended.out)["status"]) == (2, "unhealthy")
