"""Fixtures and rules that all tests share."""

import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import hypothesis
import pytest
from django.db import connection, connections
from django.test import TransactionTestCase

from marketplace_sync import redaction
from marketplace_sync.governance import keys
from marketplace_sync.governance.key_notes import KeyNotes
from marketplace_sync.governance.refusals import folded_refusals, refused_requests
from marketplace_sync.models.audit import CLOSE_GATE, GATE_WIDE_OPEN, OPEN_GATE
from marketplace_sync.tests.support.fork_server import AUDIT_EVENT

TESTS = Path(__file__).parent

# The share of its examples that each property test tries. `make quick` and `make test` set less than 1: each run draws
# other examples. `.ci/run` tries all of them.
EXAMPLES = float(os.environ.get("EXAMPLES", "1"))
FEWEST_EXAMPLES = 5
# No deadline: a shared machine pauses. A failing example is printed so that it can be run again.
hypothesis.settings.register_profile(
    "project", deadline=None, print_blob=True, max_examples=max(FEWEST_EXAMPLES, round(100 * EXAMPLES))
)
hypothesis.settings.load_profile("project")
# Where tests start no program and no browser.
ONE_PROCESS = ("unit", "database")
# What starts a process. The language's test lists the tracked files, and loading a C library may ask ldconfig.
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", AUDIT_EVENT}
HARMLESS = ("git", "ldconfig")

TEST_REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


def without_service(name: str) -> None:
    """Skip a test because a service is missing; fail it if `REQUIRE_SERVICES=1`."""
    reason = f"{name} is needed, and does not answer. Start it, or unset REQUIRE_SERVICES."
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def answers(url: str) -> bool:
    """Return whether something listens at this URL."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture
def redis_url() -> str:
    """Return the URL of a Redis on this machine."""
    if not answers(TEST_REDIS_URL):
        without_service("Redis")
    return TEST_REDIS_URL


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets that a test protects."""
    monkeypatch.setattr(redaction, "_forms", dict(redaction._forms))
    monkeypatch.setattr(redaction, "_pattern", redaction._pattern)


@pytest.fixture(autouse=True)
def _no_refusals_counted() -> Iterator[None]:
    """Forget the refusals that a test has counted."""
    yield
    refused_requests.clear()
    folded_refusals.clear()


@pytest.fixture(autouse=True)
def _own_key_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the key notes that a test could not write."""
    monkeypatch.setattr(keys, "notes", KeyNotes())


@pytest.fixture(autouse=True, scope="session")
def _no_authorities() -> Iterator[None]:
    """Trust none of the system's certificate authorities: to load them takes each client of the marketplace 40 ms.

    Tests of TLS trust an authority of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_default_certs", lambda *_, **__: None)
        yield


# Filled from the models when the database is created. Django would fill them again after every flush.
KEPT_TABLES = {"django_content_type", "auth_permission"}


@pytest.fixture(autouse=True, scope="session")
def _quick_flush() -> Iterator[None]:
    """Empty the tables quickly after a transactional test: there are hundreds.

    Only the tables with rows: one query finds them. Without the command `flush`, which tries to import a module of each
    app. By DELETE also on PostgreSQL, where TRUNCATE recreates every table and index: 100 ms for tables with hardly a
    row. The database refuses to delete audit rows: the gate is opened for that.
    """
    tables: list[str] = []

    def empty_tables(case: TransactionTestCase) -> None:
        if not tables:
            found = connection.introspection.django_table_names(only_existing=True, include_views=False)
            tables.extend(connection.ops.quote_name(name) for name in found if name not in KEPT_TABLES)
        filled = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in tables)
        with connection.cursor() as cursor:
            cursor.execute(filled)
            emptied = [f"DELETE FROM {name}" for (name,) in cursor.fetchall()]
        if emptied:
            connection.ops.execute_sql_flush([OPEN_GATE % GATE_WIDE_OPEN, *emptied, CLOSE_GATE])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture
def unredacted_records() -> Iterator[None]:
    """Create log records as `logging` does, to see what they would show without redaction."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    yield
    logging.setLogRecordFactory(factory)


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Let every library that handles input of the marketplace log at DEBUG."""
    for name in (None, "asyncio", "httpcore2", "httpx2", "websockets", "marketplace_sync"):
        caplog.set_level(logging.DEBUG, logger=name)


# The fixtures of pytest-django that open the database. A test uses it if it requests one of them, also indirectly.
DATABASE_FIXTURES = {"db", "transactional_db"}
# A path that cannot be opened: programs of a test without the mark find no database.
NOWHERE = "sqlite:////dev/null/a-test-of-the-database-needs-its-mark"


@pytest.fixture
def postgres(db: None) -> None:
    """Run the test on PostgreSQL only: `make test` runs the tests on both databases."""


@pytest.fixture
def sqlite() -> None:
    """Run the test on SQLite only."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use the database, before `-m` selects, and leave out those of the other database."""
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE_FIXTURES & fixtures_of(item):
            item.add_marker("database")
        if folder_of(item) == "unit" and item.get_closest_marker("database"):
            raise pytest.UsageError(f"{item.nodeid} uses the database: move it to tests/database.")
        try_fewer_examples(item)
    other = "sqlite" if connection.vendor == "postgresql" else "postgres"
    elsewhere = [item for item in items if other in fixtures_of(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


def fixtures_of(item: pytest.Item) -> set[str]:
    """Return the fixtures that this test requests, also indirectly."""
    return set(getattr(item, "fixturenames", ()))


def folder_of(item: pytest.Item) -> str:
    """Return the folder of tests/ that the test is in."""
    return item.path.relative_to(TESTS).parts[0]


def try_fewer_examples(item: pytest.Item) -> None:
    """Cut the number of examples of a property test that names a number of its own."""
    test = getattr(item, "obj", None)
    own = getattr(test, "_hypothesis_internal_use_settings", None)
    if EXAMPLES < 1 and own is not None:
        fewer = max(min(FEWEST_EXAMPLES, own.max_examples), round(own.max_examples * EXAMPLES))
        function = getattr(test, "__func__", test)
        function._hypothesis_internal_use_settings = hypothesis.settings(own, max_examples=fewer)


_watched: list[pytest.Item] = []


def _refuse_processes(event: str, arguments: tuple[object, ...]) -> None:
    """Fail a test of `ONE_PROCESS` that starts a process: `make quick` runs those, and promises to start none."""
    if _watched and event in STARTS and not str(next(iter(arguments), "")).endswith(HARMLESS):
        raise RuntimeError(f"{_watched[0].nodeid} starts a process ({event}): move it to tests/process.")


sys.addaudithook(_refuse_processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Keep a test to what its folder and its marks promise.

    A test without the mark `database` is run on SQLite alone: so it must not get at a database unnoticed. In its own
    process pytest-django keeps it out; here, the programs that it starts.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("database"):
            patch.setenv("DATABASE_URL", NOWHERE)
        if folder_of(item) in ONE_PROCESS:
            _watched.append(item)
        try:
            return (yield)
        finally:
            _watched.clear()


@pytest.fixture
def _marked(request: pytest.FixtureRequest) -> None:
    """Fail a test that requests the database only while it runs: the marks were set before."""
    if not request.node.get_closest_marker("database"):
        pytest.fail("The database was requested late: name the fixture in the test, or mark it django_db.")


@pytest.fixture
def db(_marked: None, db: None) -> None:
    """Wrap the fixture of pytest-django in that check."""


@pytest.fixture
def transactional_db(_marked: None, transactional_db: None) -> None:
    """Wrap the fixture of pytest-django in that check."""


@pytest.fixture
def program_environment(transactional_db: None) -> Callable[..., dict[str, str]]:
    """Return a function: settings -> the environment of a program that uses the tests' database."""

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
    """Make the database unreachable: its settings point nowhere."""
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
