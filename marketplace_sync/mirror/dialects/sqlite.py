"""The mirror on SQLite.

SQLite's driver asks for the interpreter's lock at each row that it steps to, and waits for it up to the switch interval
(5 ms) while the event loop works. So what is read comes as one JSON value, and rows are written by statements of many
rows: 40 µs per row where `executemany` took 7,000 µs beside a busy loop.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
from django.db import OperationalError, connection, transaction
from django.db.backends.sqlite3.base import FORMAT_QMARK_REGEX, SQLiteCursorWrapper

from marketplace_sync.mirror.dialects.base import BulkTable, Dialect, UnreadableRowsError

_encode = msgspec.json.Encoder().encode

# Each statement has room for one of these numbers of rows, so that few statements are prepared per table. Rows of NULL,
# which do nothing, fill the room that is left. A statement may have 32,766 parameters.
_ROOM = (1, 4, 16, 64, 256, 1024)
# The WAL's pages, of 4 KiB, past which a commit writes a checkpoint: SQLite's default, and 32 MiB.
_CHECKPOINT_PAGES, _MANY_CHECKPOINT_PAGES = 1000, 8192


class _PreparedCursor(SQLiteCursorWrapper):
    """A cursor that searches a text for placeholders once."""

    def convert_query(self, query: str, *, param_names: list[str] | None = None) -> str:
        """Return the query with SQLite's placeholders."""
        return _with_marks(query)


@lru_cache(maxsize=256)
def _with_marks(query: str) -> str:
    return FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


class SqliteDialect(Dialect):
    """Read and write the mirror on SQLite."""

    now = "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"
    # Transactions begin IMMEDIATE, which locks the whole file.
    lock_lease = f"SELECT epoch, holder, feed_seq, renewed_at, {now} FROM marketplace_sync_lease WHERE id = 1"
    # To write a column, changed or not, is to write its indexes.
    narrow_updates_pay = True

    def _driver_cursor(self, database: Any) -> Any:
        return database.connection.cursor(factory=_PreparedCursor)

    def select_rows(self, columns: Sequence[str], source: str, parameters: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Select all rows as one JSON value."""
        rows = f"SELECT CAST(json_group_array(json_array({', '.join(columns)})) AS BLOB) FROM {source}"
        try:
            ((text,),) = self.select(rows, parameters)
            found: list[list[Any]] = msgspec.json.decode(text)
        except (OperationalError, msgspec.MsgspecError, UnicodeError) as error:
            # SQLite names the BLOB that it cannot convert to JSON.
            if isinstance(error, OperationalError) and "BLOB" not in str(error):
                raise
            raise UnreadableRowsError(str(error)) from error
        return found

    def start_select(self, sql: str) -> Callable[[], list[tuple[Any, ...]]]:
        """Run the statement now: there is no exchange to share."""
        found = self.select(sql)
        return lambda: found

    @contextmanager
    def pipeline(self) -> Iterator[None]:
        """Do nothing: each statement runs where it is called."""
        yield

    def insert(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows by few statements."""
        self._write(_insert_sql, table, rows)

    def update(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Update rows by few statements."""
        self._write(_update_sql, table, rows)

    def _write(self, sql: Callable[[BulkTable, int], str], table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement per thousand rows. `sql` returns its text by the number of rows that it has room for."""
        if not rows:
            return
        with self.cursor() as cursor:
            for start in range(0, len(rows), _ROOM[-1]):
                part = rows[start : start + _ROOM[-1]]
                room = next(room for room in _ROOM if room >= len(part))
                values = list(chain.from_iterable(part))
                values += [None] * ((room - len(part)) * len(table.columns))
                cursor.execute(sql(table, room), values)

    def among(self, column: str, keys: Collection[str]) -> tuple[str, tuple[Any, ...]]:
        """Pass the keys as one JSON array."""
        return f"{column} IN (SELECT value FROM json_each(%s))", (_encode(list(keys)).decode(),)

    def json_column(self, column: str) -> str:
        """Return the column: SQLite stores JSON as text."""
        return column

    def text_size(self, column: str) -> str:
        """Count bytes; the length of a text would count its characters."""
        return f"length(CAST({column} AS BLOB))"

    def float_column(self, column: str) -> str:
        """Return all 17 digits, of which SQLite's JSON keeps 15.

        Numbers so small that `printf` would round them are "": read those as they are.
        """
        return (
            f"CASE WHEN {column} = 0 OR {column} >= 1e-9 THEN printf('%%!.17g', {column}) WHEN {column} > 0 THEN '' END"
        )

    def time_column(self, column: str) -> str:
        """Return the stored text in the form of a stamp."""
        return f"replace({column}, ' ', 'T')"

    def keep_few_pages(self) -> None:
        """Shrink the page cache of the connection."""
        self.execute("PRAGMA cache_size = -512")

    @contextmanager
    def fewer_checkpoints(self) -> Iterator[None]:
        """In the body, write a checkpoint when the WAL has 32 MiB, and not at 4 MiB.

        The daemon's other connections commit every second or two, and write it from 4 MiB on. So a page that batch
        after batch changes is moved once, and no batch waits for it: 54 µs per new skill instead of 69. Use it for many
        rows only: a small batch beside another thread's checkpoint takes 18 to 37 ms, one in a hundred, instead of 10.
        """
        self.execute(f"PRAGMA wal_autocheckpoint = {_MANY_CHECKPOINT_PAGES}")
        try:
            yield
        finally:
            if connection.connection is not None:
                self.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")

    def limit_lock_wait(self, milliseconds: int) -> None:
        """Do nothing: the transaction has the file's lock already."""

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Open a transaction without the busy timeout."""
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout")
            usual = int(cursor.fetchone()[0])
            cursor.execute("PRAGMA busy_timeout = 0")
            try:
                with transaction.atomic():
                    yield
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {usual}")


@lru_cache(maxsize=64)
def _insert_sql(table: BulkTable, rows: int) -> str:
    into = f"INSERT INTO {table.name} ({table.column_list})"
    if rows == 1:
        return f"{into} VALUES {_values(table, 1)}{table.on_conflict}"
    return (
        f"{into} SELECT * FROM (VALUES {_values(table, rows)}) "
        f"WHERE column{len(table.columns)} IS NOT NULL{table.on_conflict}"
    )


@lru_cache(maxsize=64)
def _update_sql(table: BulkTable, rows: int) -> str:
    names = table.columns[:-1]
    if rows == 1:
        changes = ", ".join(f"{name} = %s" for name in names)
        return f"UPDATE {table.name} SET {changes} WHERE {table.key} = %s"
    changes = ", ".join(f"{name} = changed.column{place}" for place, name in enumerate(names, 1))
    return (
        f"UPDATE {table.name} SET {changes} FROM (VALUES {_values(table, rows)}) AS changed "
        f"WHERE {table.name}.{table.key} = changed.column{len(table.columns)}"
    )


def _values(table: BulkTable, rows: int) -> str:
    one = f"({', '.join(['%s'] * len(table.columns))})"
    return ", ".join([one] * rows)
