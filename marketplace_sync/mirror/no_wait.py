"""Writing beside a read: at once, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

# The shortest that PostgreSQL knows; 0 would wait without end.
_SHORTEST = "1ms"


@contextmanager
def without_waiting() -> Iterator[None]:
    """Open a transaction in which a statement fails at once where it would wait for a lock.

    Within a transaction of the caller it is a savepoint of that one. Nor does its commit wait for a standby of
    PostgreSQL. Raises what the database raises, with nothing written and the connection as it was.
    """
    with _SHORT_OF[connection.vendor]():
        yield


@contextmanager
def _on_sqlite() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        patience = int(cursor.fetchone()[0])
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            with transaction.atomic():
                yield
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {patience}")


@contextmanager
def _on_postgresql() -> Iterator[None]:
    within = connection.in_atomic_block
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        patience = cursor.fetchone()[0]
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_SHORTEST,))
        if not within:
            cursor.execute("SET LOCAL synchronous_commit = off")
        yield
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (patience,))


_SHORT_OF = {"sqlite": _on_sqlite, "postgresql": _on_postgresql}
