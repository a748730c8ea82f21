"""A statement of a web process ends in time, on both databases, and the answer is 503; the daemon's do not."""

from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection
from django.db.backends.signals import connection_created

from marketplace_sync import postgres
from marketplace_sync.unavailable import TIMEOUT, reason_of
from marketplace_sync.web import deadline

pytestmark = pytest.mark.django_db(transaction=True)

# Runs for minutes where nothing ends it.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000000) SELECT count(*) FROM n"
SHORT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT count(*) FROM n"


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make later connections of this process those of a web process."""
    monkeypatch.setattr(postgres, "_wanted", {})
    deadline.limit_statements(0.3)
    connection.close()
    yield
    connection_created.disconnect(dispatch_uid=deadline.__name__)
    connection.close()
    connection.execute_wrappers.clear()


def run(query: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


@pytest.mark.usefixtures("limited")
def test_slow_statement_is_cancelled() -> None:
    with pytest.raises(OperationalError) as error:
        run(ENDLESS)
    assert reason_of(error.value) is TIMEOUT
    assert run(SHORT) == 1000  # each has its own time


@pytest.mark.usefixtures("limited")
def test_new_connection_of_the_same_thread_is_limited_too() -> None:
    for _ in range(3):
        connection.close()
        run(SHORT)
    assert len(connection.execute_wrappers) <= 1
    with pytest.raises(OperationalError):
        run(ENDLESS)


def test_slow_fetching_does_not_count_as_a_slow_statement() -> None:
    times = iter([0.0, 0.0, 100.0, 100.1, 200.0, 200.1, 300.0])
    statement = deadline._Statement(7.0, lambda: next(times))
    statement.begin(lambda: None)
    assert [statement.is_over() for _ in range(5)] == [False] * 5
