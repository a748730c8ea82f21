"""Options of the database in `DATABASE_URL`."""

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


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgres:///mirror?CONN_MAX_AGE=abc", "CONN_MAX_AGE"),
        ("postgres:///mirror?pool=true", "pool"),
        ("postgres:///mirror?isolation_level=9", "isolation_level"),
        ("sqlite:///x.db?CONN_MAX_AGE=abc", "CONN_MAX_AGE"),
        ("sqlite:///x.db?timeout=abc", "timeout"),
        ("sqlite:///x.db?cached_statements=many", "cached_statements"),
        ("sqlite:///x.db?transaction_mode=LATER", "transaction_mode"),
        ("sqlite:///x.db?speed=1", "speed"),
    ],
)
def test_an_impossible_option_in_the_url_is_an_error_of_the_setting(tmp_path: Path, url: str, named: str) -> None:
    env = Environment({"DATABASE_URL": url}, None)
    assert env.database(tmp_path)["ENGINE"] == "django.db.backends.dummy"
    assert [named in problem.message for problem in env.problems] == [True]


@pytest.mark.parametrize(
    "url",
    [
        "postgres:///mirror?CONN_MAX_AGE=None&connect_timeout=3&isolation_level=3",
        "sqlite:///x.db?timeout=2.5&transaction_mode=exclusive&cached_statements=10&CONN_MAX_AGE=60",
    ],
)
def test_possible_options_in_the_url_are_accepted(tmp_path: Path, url: str) -> None:
    env = Environment({"DATABASE_URL": url}, None)
    assert env.database(tmp_path)["ENGINE"] != "django.db.backends.dummy"
    assert env.problems == []
