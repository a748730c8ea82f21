"""The database is write-locked: pages show it, and requests that write are answered in time."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.test import Client

from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.write_probe import write_trouble
from marketplace_sync.models import LeaseRow
from marketplace_sync.monitoring import facts
from marketplace_sync.monitoring.facts import read_facts
from marketplace_sync.tests.support.harness import age_the_lease
from marketplace_sync.tests.support.scrapes import forget_answers

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def write_locked() -> Iterator[None]:
    """Lock as another process's endless transaction does: the file on SQLite, the lease's row on PostgreSQL."""
    locked, over = threading.Event(), threading.Event()

    def lock() -> None:
        try:
            with transaction.atomic():
                if connection.vendor == "postgresql":
                    with connection.cursor() as cursor:
                        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                list(LeaseRow.objects.select_for_update())
                locked.set()
                over.wait(120)
        finally:
            connection.close()

    locking = threading.Thread(target=lock)
    locking.start()
    try:
        assert locked.wait(30)
        yield
    finally:
        over.set()
        locking.join()


def health() -> dict[str, dict[str, object]]:
    forget_answers()
    checks: dict[str, dict[str, object]] = json.loads(Client().get("/health/sync").content)["checks"]
    return checks


def test_health_reports_a_write_locked_database_instead_of_a_dead_daemon() -> None:
    acquire("host:1")
    age_the_lease(95)
    with write_locked():
        if connection.vendor == "postgresql":
            the_transaction_is_old()
        checks = health()
        first, second = list(checks.items())[:2]
        assert first[0] == "database"
        assert "locked for writing" in str(first[1]["reason"])
        assert second[0] == "daemon"
        assert "may be running" in str(second[1]["reason"])
        assert "Start" not in str(second[1]["do"])
    assert write_trouble() is None
    checks = health()
    assert checks["database"]["status"] == "healthy"
    assert "Start manage.py runsync" in str(checks["daemon"]["do"])


def the_transaction_is_old() -> None:
    """Wait until PostgreSQL counts the lock as a long one."""
    deadline = time.monotonic() + 30
    while write_trouble() is None:
        assert time.monotonic() < deadline


def test_no_probe_while_the_daemon_renews_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("probed")

    monkeypatch.setattr(facts, "write_trouble", never)
    acquire("host:1")
    assert read_facts().write_trouble is None
    age_the_lease(6)
    with pytest.raises(AssertionError, match="probed"):
        read_facts()


def test_probe_leaves_the_connection_unchanged() -> None:
    def patience() -> object:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout" if connection.vendor == "sqlite" else "SHOW lock_timeout")
            return cursor.fetchone()[0]

    before = patience()
    with write_locked():
        write_trouble()
    assert (patience(), connection.in_atomic_block, connection.get_autocommit()) == (before, False, True)
    LeaseRow.objects.update(feed_seq=1)  # the connection can write


@pytest.mark.usefixtures("postgres")
def test_health_names_the_session_that_has_the_lock() -> None:
    acquire("host:1")
    with write_locked():
        the_transaction_is_old()
        found = write_trouble()
        assert found is not None and found.session is not None and found.seconds is not None
        with connection.cursor() as cursor:
            cursor.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [found.session])
            assert cursor.fetchone()[0] == "idle in transaction"


@pytest.mark.usefixtures("postgres")
def test_health_reports_a_read_only_database() -> None:
    acquire("host:1")
    age_the_lease(95)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    try:
        assert "read-only" in str(health()["database"]["reason"])
    finally:
        connection.close()
