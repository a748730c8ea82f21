"""The differences between SQLite and PostgreSQL in bulk reads and writes of the mirror."""

from django.db import DEFAULT_DB_ALIAS, connections

from marketplace_sync.mirror.dialects.base import BulkTable, Dialect, UnreadableRowsError
from marketplace_sync.mirror.dialects.postgresql import PostgresDialect
from marketplace_sync.mirror.dialects.sqlite import SqliteDialect

__all__ = ["BulkTable", "Dialect", "UnreadableRowsError", "dialect"]

_DIALECTS: dict[str, Dialect] = {"postgresql": PostgresDialect(), "sqlite": SqliteDialect()}


def dialect() -> Dialect:
    """Return the dialect of the default database. It works on this thread's connection."""
    return _DIALECTS[connections[DEFAULT_DB_ALIAS].vendor]
