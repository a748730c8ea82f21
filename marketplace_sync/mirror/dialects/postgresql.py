"""The mirror on PostgreSQL.

Measured for 2,500 skills of 1.8 KB: the server takes 33 µs per row to read them out of one JSON parameter
(`json_to_recordset`), and 9 µs to COPY them into a temporary table; the rest is the same. But a COPY must be waited
for, and few rows come faster with all other statements in one exchange: batches of 100 take as long either way, batches
of 1,000 a fifth less by COPY. `unnest` of binary arrays took 16 µs of the server and 8 µs of ours; `executemany` was a
tenth slower than JSON at any size.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
from django.db import connection, transaction

from marketplace_sync.mirror.dialects.base import BulkTable, Dialect
from marketplace_sync.postgres import is_shared_per_transaction

_encode = msgspec.json.Encoder().encode

# How PostgreSQL plans the statements of a writing transaction. A generic plan, made once: planning takes longer than
# running. No sequential scan, since a plan may have been made when the table was empty. No JIT, which the high cost of
# a scan that is "off" would start.
_PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
# The shortest time that PostgreSQL knows; 0 would wait for ever.
_SHORTEST_WAIT = "1ms"


class PostgresDialect(Dialect):
    """Read and write the mirror on PostgreSQL."""

    now = "clock_timestamp()"
    lock_lease = (
        "WITH locked AS MATERIALIZED (SELECT epoch, holder, feed_seq, renewed_at "
        "FROM marketplace_sync_lease WHERE id = 1 FOR UPDATE) "
        f"SELECT locked.*, {now}, "
        + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _PLANNING.items())
        + " FROM locked"
    )
    # An update writes every index of the row anyway.
    narrow_updates_pay = False

    def _driver_cursor(self, database: Any) -> Any:
        unprepared = database.queries_logged or is_shared_per_transaction(database)
        return _cursor_types()[unprepared](database.connection)

    def select_rows(self, columns: Sequence[str], source: str, parameters: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Select the rows as they are."""
        return self.select(f"SELECT {', '.join(columns)} FROM {source}", parameters)

    def start_select(self, sql: str) -> Callable[[], list[tuple[Any, ...]]]:
        """Send the statement within `pipeline`, or run it now."""
        if not _in_pipeline():
            found = self.select(sql)
            return lambda: found
        cursor = self.cursor()
        cursor.execute(sql, ())

        def rows() -> list[tuple[Any, ...]]:
            with cursor:
                found: list[tuple[Any, ...]] = cursor.fetchall()
                return found

        return rows

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Use libpq's pipeline mode. COPY cannot be sent within it."""
        with connection.wrap_database_errors, connection.connection.pipeline():
            yield

    def insert(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Send few rows as one JSON text, and many by COPY.

        Rows that may exist are merged from a temporary table. That statement has no join, so its plan is as good
        whatever the table had when it was planned.
        """
        if not rows:
            return
        if _in_pipeline():
            payload = _encode([table.row_type(*_as_json(table, row)) for row in rows]).decode()
            self.execute(_merge_sql(table, _json_source(table)), (payload,))
        elif table.key:
            self._copy_and_merge(table, rows)
        else:
            self._copy(table, table.name, rows)

    def update(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing: `insert` replaces whole rows, as narrow updates do not pay."""
        assert not rows

    def _copy_and_merge(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        arrived = f"arrived_{table.name}"
        kept = "DROP" if is_shared_per_transaction(connection) else "DELETE ROWS"
        self.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {arrived} ON COMMIT {kept} "
            f"AS SELECT {table.column_list} FROM {table.name} WITH NO DATA"
        )
        self._copy(table, arrived, rows)
        self.execute(_merge_sql(table, arrived))
        self.execute(f"DELETE FROM {arrived}")  # for another call in this transaction

    def _copy(self, table: BulkTable, into: str, rows: Sequence[Sequence[Any]]) -> None:
        # Django's cursor passes `copy` and its errors through.
        sql = f"COPY {into} ({table.column_list}) FROM STDIN"
        with connection.wrap_database_errors, self.cursor() as cursor, cursor.copy(sql) as copy:
            for row in rows:
                copy.write_row(row)

    def among(self, column: str, keys: Collection[str]) -> tuple[str, tuple[Any, ...]]:
        """Pass the keys as one array."""
        return f"{column} = ANY(%s)", (list(keys),)

    def json_column(self, column: str) -> str:
        """Return the column as text."""
        return f"{column}::text"

    def text_size(self, column: str) -> str:
        """Count the bytes of the text."""
        return f"octet_length({column}::text)"

    def float_column(self, column: str) -> str:
        """Return the column: the driver reads all digits."""
        return column

    def time_column(self, column: str) -> str:
        """Return the time in the form of a stamp."""
        return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"

    def keep_few_pages(self) -> None:
        """Do nothing: the server caches, not the connection."""

    @contextmanager
    def fewer_checkpoints(self) -> Iterator[None]:
        """Do nothing: a process of the server's writes checkpoints."""
        yield

    def limit_lock_wait(self, milliseconds: int) -> None:
        """Set `lock_timeout` for this transaction."""
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {milliseconds}")

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Open a transaction with the shortest lock timeout, whose commit does not wait for a standby."""
        within = connection.in_atomic_block
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            usual = cursor.fetchone()[0]
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (_SHORTEST_WAIT,))
            if not within:
                cursor.execute("SET LOCAL synchronous_commit = off")
            yield
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (usual,))


@cache
def _cursor_types() -> tuple[type, type]:
    from psycopg import Cursor  # not installed where only SQLite is used

    class Prepared(Cursor[tuple[Any, ...]]):
        prepare = True

        def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
            return super().execute(query, params, prepare=self.prepare)

    class Unprepared(Prepared):
        prepare = False  # of a prepared statement psycopg keeps no text that could be logged

    return Prepared, Unprepared


def _in_pipeline() -> bool:
    return bool(connection.connection.info.pipeline_status)


def _merge_sql(table: BulkTable, source: str) -> str:
    columns = table.column_list
    return f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM {source}{table.on_conflict}"


@cache
def _json_source(table: BulkTable) -> str:
    types = ", ".join(f"{field.column} {field.db_type(connection)}" for field in table.fields)
    return f"json_to_recordset(%s::json) AS incoming ({types})"


def _as_json(table: BulkTable, row: Sequence[Any]) -> list[Any]:
    values = list(row)
    for place in table.json_places:
        values[place] = msgspec.Raw(values[place].encode())
    return values
