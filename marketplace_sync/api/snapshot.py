"""A consistent snapshot of the mirror, with its freshness and feed number."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from marketplace_sync.mirror.status import Freshness, freshness


@contextmanager
def snapshot() -> Iterator[Freshness]:
    """Open a transaction that reads one consistent state. Yield the freshness of that state.

    The freshness is read first, so rows that are read later are never older than it, on any database. PostgreSQL:
    repeatable read, read only. SQLite: a deferred transaction, which in WAL mode reads one state and waits for no
    writer; the settings make transactions immediate, which would take the only write lock just to read. Within a
    transaction of the caller, that transaction's state is read.
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
    """Let this thread's transactions begin without a lock, as is SQLite's default. Does nothing on PostgreSQL."""
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    configured = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "DEFERRED"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.transaction_mode = configured  # type: ignore[attr-defined]
