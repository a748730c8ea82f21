"""Many rows in few statements: the only place where the two databases differ in how the mirror is written.

What was measured:

- PostgreSQL, 2,500 skills of 1.8 KB, microseconds a row: to read them out of one JSON parameter (`json_to_recordset`)
  takes the server 33, to COPY them into a temporary table 9; the rest is the same. A COPY has to be waited for by
  itself, and few rows come quicker with all else in one exchange: batches of 100 are as quick either way, of 1,000 a
  fifth quicker by COPY. `unnest` of binary arrays: 16 for the server and 8 for us. `executemany`, tried at first:
  a tenth behind JSON at any size.
- SQLite: `executemany` asks for the interpreter's lock twice a row, and while the event loop is at work waits up to
  the switch interval for it each time: 7,000 us a row. One statement of many rows works without the lock: 40 us, and
  the loop goes on meanwhile.
"""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from itertools import chain
from typing import Any

import msgspec
from django.db import connection, models

from marketplace_sync.mirror.sql import cursor, execute, is_at_once
from marketplace_sync.postgres import is_shared_per_transaction

_encode = msgspec.json.Encoder().encode

# SQLite's statements have room for so many rows, so that few of each kind are prepared; what is left of the room is
# filled with rows of NULL, which do nothing. A statement may have 32,766 parameters.
_ROOM = (1, 4, 16, 64, 256, 1024)


def narrow_updates_pay() -> bool:
    """SQLite: to write a column, changed or not, is to write its indexes. PostgreSQL writes all of them anyway."""
    return connection.vendor == "sqlite"


class Bulk:
    """Writes rows of one table.

    A row is a sequence in the order of `columns`: JSON columns as `sql.json_text` gives them, times as
    `sql.stamp_value` and `sql.moment_value` do, all else as plain values: an enumeration's member is no `str` to the
    drivers, and looked up anew each time. All texts must have passed `protocol`'s checks, and no row may come twice in
    one call.
    The last column is never null; `keyed`: it is the one by which a row is known, and there may be one already.
    """

    def __init__(self, model: type[models.Model], columns: Sequence[str], *, keyed: bool = False) -> None:
        by_column = {field.column: field for field in model._meta.concrete_fields}
        self._table = model._meta.db_table
        self._columns = tuple(columns)
        self._fields = [by_column[name] for name in columns]
        self._json = [place for place, field in enumerate(self._fields) if isinstance(field, models.JSONField)]
        self._row = msgspec.defstruct("Row", self._columns, array_like=False)
        self._names = ", ".join(self._columns)
        self._key = columns[-1] if keyed else ""
        self._inserts = cache(self._insert_of)
        self._updates = cache(self._update_of)

    def insert(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add these rows; one whose key is there already takes the new values instead."""
        if not rows:
            return
        if connection.vendor == "sqlite":
            self._in_few(self._inserts, rows)
        elif self._key or is_at_once():
            self._merge(rows)
        else:
            self._copy(self._table, rows)

    def update(self, rows: Sequence[Sequence[Any]]) -> None:
        """SQLite: give the rows that have these keys the other columns' values (see `narrow_updates_pay`)."""
        if rows:
            self._in_few(self._updates, rows)

    def _merge(self, rows: Sequence[Sequence[Any]]) -> None:
        """PostgreSQL: few rows come as one JSON text, of types that are told, many by COPY.

        The statement has no join, so it is as good whatever the table held when it was planned.
        """
        sql = f"INSERT INTO {self._table} ({self._names}) SELECT {self._names} FROM {{told}}{self._conflict()}"
        if is_at_once():
            payload = _encode([self._row(*self._as_json(row)) for row in rows]).decode()
            execute(sql.format(told=self._told), (payload,))
        else:
            arrived = f"arrived_{self._table}"
            kept = "DROP" if is_shared_per_transaction(connection) else "DELETE ROWS"
            execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {arrived} ON COMMIT {kept} "
                    f"AS SELECT {self._names} FROM {self._table} WITH NO DATA")  # fmt: skip
            self._copy(arrived, rows)
            execute(sql.format(told=arrived))
            execute(f"DELETE FROM {arrived}")  # for the next in this transaction, if any

    def _copy(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        # Django's cursor hands `copy` through as it is, its errors too.
        into = f"COPY {table} ({self._names}) FROM STDIN"
        with connection.wrap_database_errors, cursor() as made, made.copy(into) as copy:
            for row in rows:
                copy.write_row(row)

    @cached_property
    def _told(self) -> str:
        types = ", ".join(f"{field.column} {field.db_type(connection)}" for field in self._fields)
        return f"json_to_recordset(%s::json) AS told ({types})"

    def _in_few(self, sql: Callable[[int], str], rows: Sequence[Sequence[Any]]) -> None:
        """SQLite: one statement for each thousand rows, whose text `sql` gives by how many it has room for."""
        with cursor() as made:
            for start in range(0, len(rows), _ROOM[-1]):
                some = rows[start : start + _ROOM[-1]]
                room = next(room for room in _ROOM if room >= len(some))
                values = list(chain.from_iterable(some))
                values += [None] * ((room - len(some)) * len(self._columns))
                made.execute(sql(room), values)

    def _insert_of(self, rows: int) -> str:
        if rows == 1:
            return f"INSERT INTO {self._table} ({self._names}) VALUES {self._values(1)}{self._conflict()}"
        return (
            f"INSERT INTO {self._table} ({self._names}) SELECT * FROM (VALUES {self._values(rows)}) "
            f"WHERE column{len(self._columns)} IS NOT NULL{self._conflict()}"
        )

    def _update_of(self, rows: int) -> str:
        if rows == 1:
            changes = ", ".join(f"{name} = %s" for name in self._columns[:-1])
            return f"UPDATE {self._table} SET {changes} WHERE {self._key} = %s"
        changes = ", ".join(f"{name} = told.column{place}" for place, name in enumerate(self._columns[:-1], 1))
        last = f"told.column{len(self._columns)}"
        return (
            f"UPDATE {self._table} SET {changes} FROM (VALUES {self._values(rows)}) AS told "
            f"WHERE {self._table}.{self._key} = {last}"
        )

    def _values(self, rows: int) -> str:
        one = f"({', '.join(['%s'] * len(self._columns))})"
        return ", ".join([one] * rows)

    def _conflict(self) -> str:
        if not self._key:
            return ""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self._columns[:-1])
        return f" ON CONFLICT ({self._key}) DO UPDATE SET {changes}"

    def _as_json(self, row: Sequence[Any]) -> list[Any]:
        values = list(row)
        for place in self._json:
            values[place] = msgspec.Raw(values[place].encode())
        return values
