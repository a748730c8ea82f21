"""Statements for many rows at once, where the ORM would spend its time building objects.

One text serves both databases: `INSERT ... ON CONFLICT ... DO UPDATE`. psycopg sends the rows of one
`executemany` in a pipeline, SQLite steps one prepared statement.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from django.db import connection, models

from marketplace_sync.protocol.stamps import Stamp, moment_of

_encode = msgspec.json.Encoder().encode


def insert_sql(model: type[models.Model], columns: Sequence[str]) -> str:
    """`INSERT INTO` that model's table, a placeholder for each of `columns`."""
    return f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"


def upsert_sql(model: type[models.Model], key: str, columns: Sequence[str]) -> str:
    """The same; where a row with that `key` stands, all its other columns take the new values."""
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return f"{insert_sql(model, columns)} ON CONFLICT ({key}) DO UPDATE SET {changes}"


def run_many(sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run `sql` once for each row, in the open transaction."""
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)


def json_text(value: Any) -> str:
    """`value` as a JSON column takes it."""
    return _encode(value).decode()


def moment_value(moment: datetime) -> Any:
    """An aware `datetime` as a column of this database takes it."""
    return connection.ops.adapt_datetimefield_value(moment)


def stamp_value(stamp: Stamp | None) -> Any:
    """A server's time likewise; `None` for none."""
    return None if stamp is None else connection.ops.adapt_datetimefield_value(moment_of(stamp))
