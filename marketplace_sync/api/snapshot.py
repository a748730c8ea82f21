"""One moment of the mirror, and how fresh it was: the feed number among it."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from marketplace_sync.mirror.status import Freshness, freshness


@contextmanager
def snapshot() -> Iterator[Freshness]:
    """A transaction that sees one moment; its value says how fresh that is.

    That is read first, so what is read after it is never older, whatever the database can do. PostgreSQL:
    repeatable read, read only. SQLite: a deferred transaction, which in WAL mode sees one moment and waits for no
    writer; the settings make transactions immediate, which would take the one write lock for a mere read. Within
    a transaction of the caller's it is that one's moment.
    """
    if connection.in_atomic_block:
        yield freshness()
        return
    with _deferred(), transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield freshness()


@contextmanager
def _deferred() -> Iterator[None]:
    """This thread's next transactions begin as SQLite's own default, without a lock; a no-op elsewhere."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    wanted = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "DEFERRED"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.transaction_mode = wanted  # type: ignore[attr-defined]
