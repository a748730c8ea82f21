"""Many rows in one statement: the only place where the two databases differ in how the mirror is read and written.

Each statement's text is the same for one row and for a thousand, so that it is prepared once. What was measured, in
microseconds of CPU a row of the skill table, client and server together, batches of 1,000 · 10 · 1:

- PostgreSQL: one JSON parameter through `json_to_recordset` 68 · 158 · 755; `executemany` in a pipeline 76 · 183 ·
  816; COPY into a temporary table and a merge 54 · 230 · 1,962. COPY is never twice as good and often far worse.
- SQLite: `executemany` steps one prepared statement, and no round trip is to be saved.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import msgspec
from django.db import connection, models

from marketplace_sync.protocol.json_text import read_json
from marketplace_sync.protocol.stamps import Stamp, to_microseconds

_encode = msgspec.json.Encoder().encode


class Bulk:
    """Writes rows of one table.

    A row is a sequence in the order of `columns`: JSON columns as plain values, times as `stamp_value` and
    `moment_value` give them. All texts must have passed `protocol`'s checks, and no row may come twice in one call.
    `keyed`: the last column is the one by which a row is known, and there may be one already.
    """

    def __init__(self, model: type[models.Model], columns: Sequence[str], *, keyed: bool = False) -> None:
        by_column = {field.column: field for field in model._meta.concrete_fields}
        self._table = model._meta.db_table
        self._columns = tuple(columns)
        self._fields = [by_column[name] for name in columns]
        self._json = [place for place, field in enumerate(self._fields) if isinstance(field, models.JSONField)]
        self._row = msgspec.defstruct("Row", self._columns)
        self._key = columns[-1] if keyed else ""

    def insert(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add these rows; one whose key is there already takes the new values instead."""
        names = ", ".join(self._columns)
        changes = ", ".join(f"{name} = excluded.{name}" for name in self._columns[:-1])
        conflict = f" ON CONFLICT ({self._key}) DO UPDATE SET {changes}" if self._key else ""
        into = f"INSERT INTO {self._table} ({names}) "
        if connection.vendor == "postgresql":
            self._recordset(f"{into}SELECT {names} FROM {{told}}{conflict}", rows)
        else:
            self._each(f"{into}VALUES ({', '.join(['%s'] * len(self._columns))}){conflict}", rows)

    def update(self, rows: Sequence[Sequence[Any]]) -> None:
        """Give the rows that have these keys the other columns' values."""
        if connection.vendor == "postgresql":
            changes = ", ".join(f"{name} = told.{name}" for name in self._columns[:-1])
            held = f"{self._table}.{self._key}"
            self._recordset(f"UPDATE {self._table} SET {changes} FROM {{told}} WHERE {held} = told.{self._key}", rows)
        else:
            changes = ", ".join(f"{name} = %s" for name in self._columns[:-1])
            self._each(f"UPDATE {self._table} SET {changes} WHERE {self._key} = %s", rows)

    def _recordset(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """PostgreSQL: all rows as one JSON text; the columns' types are told, not guessed."""
        if rows:
            types = ", ".join(f"{field.column} {field.db_type(connection)}" for field in self._fields)
            payload = _encode([self._row(*row) for row in rows]).decode()
            execute(sql.format(told=f"json_to_recordset(%s::json) AS told ({types})"), (payload,))

    def _each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """SQLite: one prepared statement, stepped row by row."""
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(sql, [self._as_text(row) for row in rows])

    def _as_text(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for place in self._json:
            values[place] = _encode(values[place]).decode()
        return values


def execute(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement, in the open transaction if any; its rows. PostgreSQL plans it once and keeps the plan."""
    with _cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def _cursor() -> Any:
    if connection.vendor != "postgresql":
        return connection.cursor()
    connection.ensure_connection()  # outside a transaction nobody has yet, and after a lost one it is gone
    wrap = connection.make_debug_cursor if connection.queries_logged else connection.make_cursor
    return wrap(_prepared()(connection.connection))


@cache
def _prepared() -> Any:
    """A cursor for `execute`. Django's own writes the parameters into the text: another statement each time."""
    from psycopg import Cursor  # not there where SQLite alone is used

    class Prepared(Cursor[tuple[Any, ...]]):
        def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
            return super().execute(query, params, prepare=True)

    return Prepared


def among(column: str, keys: Collection[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition that `column` is one of `keys`, with its parameters: one, however many keys there are."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", (list(keys),)
    return f"{column} IN (SELECT value FROM json_each(%s))", (_encode(list(keys)).decode(),)


def json_columns(table: str, columns: Iterable[str]) -> str:
    """An expression that gives these JSON columns as the text of one list: read once, not once for each."""
    cast = "::text" if connection.vendor == "postgresql" else ""
    return "'[' || " + " || ',' || ".join(f"{table}.{name}{cast}" for name in columns) + " || ']'"


def json_value(text: str) -> Any:
    """The value of held JSON, by the same reading as what was received."""
    return read_json(text)[0]


def time_column(column: str) -> str:
    """An expression that gives a time column as text for `held_stamp`."""
    if connection.vendor == "postgresql":
        return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
    return f"replace({column}, ' ', 'T')"


def held_stamp(text: str | None) -> Stamp | None:
    """The stamp of a time column (see `time_column`)."""
    if text is None:
        return None
    return Stamp(text.rstrip("0").rstrip(".") if "." in text else text)


def moment_value(moment: datetime) -> str:
    """An aware `datetime` as either database's columns take it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


@lru_cache(maxsize=10_000)
def stamp_value(stamp: Stamp | None) -> str | None:
    """A server's time likewise; `None` for none."""
    return None if stamp is None else to_microseconds(stamp).replace("T", " ")
