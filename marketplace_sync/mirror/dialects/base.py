"""The protocol of a dialect, and the tables that it writes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from django.db import DEFAULT_DB_ALIAS, connections, models


class UnreadableRowsError(Exception):
    """A selected row has a value that the mirror never writes in that column, such as bytes for a text."""


class BulkTable:
    """A table that rows are written to in bulk.

    A row is a sequence in the order of `columns`. JSON columns are texts (`values.json_text`), times are texts too
    (`values.stamp_value`, `values.moment_value`); all else is a plain value. Pass no member of an enumeration: it is
    no `str` to the drivers, which look for an adapter each time. All texts must have passed the checks of `protocol`.
    No row may come twice in one call.

    The last column is never null. `keyed`: it identifies a row, which may exist already.
    """

    def __init__(self, model: type[models.Model], columns: Sequence[str], *, keyed: bool = False) -> None:
        by_column = {field.column: field for field in model._meta.concrete_fields}
        self.name = model._meta.db_table
        self.columns = tuple(columns)
        self.fields = [by_column[name] for name in columns]
        self.json_places = [place for place, field in enumerate(self.fields) if isinstance(field, models.JSONField)]
        self.row_type = msgspec.defstruct("Row", self.columns, array_like=False)
        self.column_list = ", ".join(columns)
        self.key = columns[-1] if keyed else ""

    @property
    def on_conflict(self) -> str:
        """Return the clause that updates a row whose key exists; "" for a table without a key."""
        if not self.key:
            return ""
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.columns[:-1])
        return f" ON CONFLICT ({self.key}) DO UPDATE SET {changes}"


class Dialect(ABC):
    """One database's way to read and write in bulk. It has no state of its own.

    The text of a statement is the same for one key and for a thousand, so that the database prepares it once.
    """

    # An expression for the database server's time; within a transaction, still the time of the statement.
    now: str
    # Reads `epoch`, `holder`, `feed_seq`, `renewed_at` and the time; afterwards nobody else writes until the commit.
    lock_lease: str
    # Whether an update of fewer columns costs less.
    narrow_updates_pay: bool

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement, in the open transaction if there is one."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            found: list[tuple[Any, ...]] = cursor.fetchall()
            return found

    def cursor(self) -> Any:
        """Return a cursor of Django's that leaves a statement as it is, so that the database prepares it once.

        Django's own cursor writes the parameters into the text for PostgreSQL: another statement each time. For SQLite
        it searches each text for placeholders again: 1 ms for a statement of many rows.
        """
        database = connections[DEFAULT_DB_ALIAS]  # each look at `connection` searches for this thread's own
        if database.connection is None:  # outside a transaction, or after a lost connection
            database.ensure_connection()
        made = self._driver_cursor(database)
        return database.make_debug_cursor(made) if database.queries_logged else database.make_cursor(made)

    @abstractmethod
    def _driver_cursor(self, database: Any) -> Any:
        """Return a cursor of the driver for this Django connection."""

    @abstractmethod
    def select_rows(self, columns: Sequence[str], source: str, parameters: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Select `columns` from `source`, which is all that follows FROM. No column may be a float (`float_column`).

        Raises `UnreadableRowsError`.
        """

    @abstractmethod
    def start_select(self, sql: str) -> Callable[[], list[tuple[Any, ...]]]:
        """Run one statement, and return a function that returns its rows, once.

        Within `pipeline` the statement is only sent, so that what is sent after it shares its exchange.
        """

    @abstractmethod
    def pipeline(self) -> AbstractContextManager[None]:
        """Send the statements of the body without waiting for their answers, where the database can.

        An error is raised at the end, or by the next statement of the body that has rows.
        """

    @abstractmethod
    def insert(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows. One whose key exists replaces the values of that row."""

    @abstractmethod
    def update(self, table: BulkTable, rows: Sequence[Sequence[Any]]) -> None:
        """Update the other columns of the rows with these keys. Only where `narrow_updates_pay`."""

    @abstractmethod
    def among(self, column: str, keys: Collection[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the condition that `column` is one of `keys`, and its one parameter, however many keys there are."""

    @abstractmethod
    def json_column(self, column: str) -> str:
        """Return an expression that gives a JSON column as text for `values.json_value`."""

    @abstractmethod
    def text_size(self, column: str) -> str:
        """Return an expression for the bytes of a text or JSON column."""

    @abstractmethod
    def float_column(self, column: str) -> str:
        """Return an expression that gives a column of floats, none of them negative, for `values.stored_float`."""

    @abstractmethod
    def time_column(self, column: str) -> str:
        """Return an expression that gives a time column as text for `values.stored_stamp`."""

    @abstractmethod
    def keep_few_pages(self) -> None:
        """Have this thread's connection cache 0.5 MiB of the file, where the writer's caches 6 MiB.

        For a thread that walks over a table, or reads each page once: it would gain nothing from 6 MiB more.
        """

    @abstractmethod
    def fewer_checkpoints(self) -> AbstractContextManager[None]:
        """Leave the checkpoints of a large batch to the other connections, as far as possible."""

    @abstractmethod
    def limit_lock_wait(self, milliseconds: int) -> None:
        """Limit how long a statement of this transaction waits for a lock."""

    @abstractmethod
    def without_waiting(self) -> AbstractContextManager[None]:
        """Open a transaction in which a statement fails where it would wait for a lock.

        Within a transaction of the caller it is a savepoint. Raises what the database raises, with nothing written
        and the connection as it was.
        """
