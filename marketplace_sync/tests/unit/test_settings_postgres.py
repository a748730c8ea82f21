"""Options of PostgreSQL in `DATABASE_URL`."""

from pathlib import Path

import pytest

from atomproject.databases import SQLITE_OPTIONS, for_web
from atomproject.env import Environment


@pytest.mark.parametrize(("written", "read"), [("true", True), ("True", True), ("false", False), ("0", False)])
def test_a_flag_in_the_url_is_read_as_a_boolean(tmp_path: Path, written: str, read: bool) -> None:
    env = Environment({"DATABASE_URL": f"postgres:///mirror?DISABLE_SERVER_SIDE_CURSORS={written}"}, None)
    assert env.database(tmp_path)["DISABLE_SERVER_SIDE_CURSORS"] is read
    assert env.problems == []


def test_a_flag_that_is_neither_is_an_error(tmp_path: Path) -> None:
    env = Environment({"DATABASE_URL": "postgres:///mirror?DISABLE_SERVER_SIDE_CURSORS=perhaps"}, None)
    assert env.database(tmp_path)["ENGINE"] == "django.db.backends.dummy"
    assert "DISABLE_SERVER_SIDE_CURSORS" in env.problems[0].message


def test_a_pool_of_the_web_process_takes_no_persistent_connections(tmp_path: Path) -> None:
    env = Environment({"DATABASE_URL": "postgres:///mirror?CONN_MAX_AGE=600"}, None)
    assert for_web(env.database(tmp_path))["CONN_MAX_AGE"] == 0


def test_an_init_command_of_the_url_is_added_to_ours(tmp_path: Path) -> None:
    env = Environment({"DATABASE_URL": "sqlite:///x.db?init_command=PRAGMA%20temp_store%3D2%3B"}, None)
    ours = SQLITE_OPTIONS["init_command"]
    assert env.database(tmp_path)["OPTIONS"]["init_command"] == f"{ours} PRAGMA temp_store=2;"
