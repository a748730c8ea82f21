"""What tests share."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import hypothesis
import pytest
from django.core.management.commands import flush
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from marketplace_sync import redaction
from marketplace_sync.governance import keys
from marketplace_sync.governance.key_notes import KeyNotes
from marketplace_sync.governance.refusals import folded_refusals, refused_requests
from marketplace_sync.models.audit import CLOSE_GATE, GATE_WIDE_OPEN, OPEN_GATE

# A shared machine's pauses are no news; a failing example is printed so that it can be run again.
hypothesis.settings.register_profile("project", deadline=None, print_blob=True)
hypothesis.settings.load_profile("project")

TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


def without_service(name: str) -> None:
    """End a test that needs a service which is not there: skipped, or failed where `REQUIRE_SERVICES=1`."""
    reason = f"{name} is needed and does not answer"
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def answers(url: str) -> bool:
    """Whether something listens where this URL points."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture
def redis_url() -> str:
    """A Redis of the machine."""
    if not answers(TEST_REDIS_URL):
        without_service("Redis")
    return TEST_REDIS_URL


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test protects is not masked in the next."""
    monkeypatch.setattr(redaction, "_forms", dict(redaction._forms))
    monkeypatch.setattr(redaction, "_pattern", redaction._pattern)


@pytest.fixture(autouse=True)
def _no_refusals_counted() -> Iterator[None]:
    """What one test had refused does not count in the next."""
    yield
    refused_requests.clear()
    folded_refusals.clear()


@pytest.fixture(autouse=True)
def _own_key_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test could not note of its keys is not noted in the next."""
    monkeypatch.setattr(keys, "notes", KeyNotes())


# Made of the models when the database is, and by nothing else. Django would make them anew after every flush.
KEPT_TABLES = {"django_content_type", "auth_permission"}


@pytest.fixture(autouse=True, scope="session")
def _quick_flush() -> Iterator[None]:
    """What empties the tables after a transactional test, of which there are hundreds.

    By DELETE also on PostgreSQL, where TRUNCATE makes every table and index anew, 100 ms for tables with hardly a row.
    The database refuses to forget audit rows: this is let through, and nothing else.
    """
    tables: list[str] = []

    def sql_flush(style: object, connection: BaseDatabaseWrapper, **_: object) -> list[str]:
        if not tables:
            tables.extend(connection.introspection.django_table_names(only_existing=True, include_views=False))
        emptied = [f"DELETE FROM {connection.ops.quote_name(name)}" for name in tables if name not in KEPT_TABLES]
        return [OPEN_GATE % GATE_WIDE_OPEN, *emptied, CLOSE_GATE]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "sql_flush", sql_flush)
        patch.setattr(flush, "emit_post_migrate_signal", lambda *_, **__: None)
        yield


@pytest.fixture
def unredacted_records() -> Iterator[None]:
    """Log records as `logging` itself makes them, to see what would be told if nothing hid it."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(factory)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Every library that carries the marketplace's words logs at DEBUG."""
    for name in (None, "asyncio", "httpcore2", "httpx2", "websockets", "marketplace_sync"):
        caplog.set_level(logging.DEBUG, logger=name)


# Who uses the tests' database: what says so to pytest-django, and all that asks for it (`program_environment` does).
DATABASE_FIXTURES = {"db", "transactional_db"}
# Where programs find no database: a file in a folder that is none.
NOWHERE = "sqlite:////dev/null/a-test-with-a-database-says-so"


@pytest.fixture
def postgres(db: None) -> None:
    """For a test of what PostgreSQL alone does: no test of the run on SQLite, `make test` has one on each."""


@pytest.fixture
def sqlite() -> None:
    """The same the other way round."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark who uses the database, before `-m` is looked at, and leave out what only the other database does."""
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE_FIXTURES & fixtures_of(item):
            item.add_marker("database")
    other = "sqlite" if connection.vendor == "postgresql" else "postgres"
    elsewhere = [item for item in items if other in fixtures_of(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


def fixtures_of(item: pytest.Item) -> set[str]:
    """All that this test asks for, and what that asks for in its turn."""
    return set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test without the mark `database` is run on SQLite alone: so it must not get at a database unnoticed.

    In its own process pytest-django keeps it out; here, the programs that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("database"):
            patch.setenv("DATABASE_URL", NOWHERE)
        return (yield)


@pytest.fixture
def _marked(request: pytest.FixtureRequest) -> None:
    """Nor may it ask for the database when it runs already, which nobody saw when the marks were given."""
    if not request.node.get_closest_marker("database"):
        pytest.fail("the database was asked for late: the test has to name the fixture, or the mark django_db")


@pytest.fixture
def db(_marked: None, db: None) -> None:
    """The one of pytest-django, behind that guard."""


@pytest.fixture
def transactional_db(_marked: None, transactional_db: None) -> None:
    """The same."""


@pytest.fixture
def program_environment(transactional_db: None) -> Callable[..., dict[str, str]]:
    """The environment of a program that a test starts: the tests' database, and the settings given."""

    def environment(**settings: object) -> dict[str, str]:
        found = connection.settings_dict
        if connection.vendor == "sqlite":
            url = f"sqlite:///{found['NAME']}"
        else:
            login = quote(str(found["USER"]), safe="") + (
                f":{quote(str(found['PASSWORD']), safe='')}" if found["PASSWORD"] else ""
            )
            url = f"postgres://{login}@{found['HOST']}:{found['PORT'] or 5432}/{found['NAME']}"
        return {**os.environ, "DATABASE_URL": url, **{name: str(value) for name, value in settings.items()}}

    return environment


@pytest.fixture
def real_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs as a shell does, not by a fork (`tests/support/fork_server.py`)."""
    monkeypatch.setattr("marketplace_sync.tests.support.processes.can_fork", lambda *_: False)


@pytest.fixture
def no_database(transactional_db: None) -> Iterator[None]:
    """The database can't be reached: its settings lead nowhere."""
    broken = connections["default"].settings_dict
    before = dict(broken)
    connection.close()
    if connection.vendor == "sqlite":
        broken["NAME"] = "/nowhere/at/all.sqlite3"
    else:
        broken.update(HOST="127.0.0.1", PORT="1")
    try:
        yield
    finally:
        connection.close()
        broken.clear()
        broken.update(before)
