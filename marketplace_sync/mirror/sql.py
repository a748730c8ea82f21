"""Reading in bulk: statements that are prepared once, and the little in which the two databases differ there.

A statement's text is the same for one key and for a thousand, so that it is prepared once.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import msgspec
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from django.db.backends.sqlite3.base import FORMAT_QMARK_REGEX, SQLiteCursorWrapper

from marketplace_sync.postgres import is_shared_per_transaction
from marketplace_sync.protocol.json_text import read_json
from marketplace_sync.protocol.stamps import Stamp, to_microseconds

_encode = msgspec.json.Encoder().encode


def execute(sql: str, parameters: Sequence[Any] = ()) -> None:
    """Run one statement, in the open transaction if any."""
    with cursor() as made:
        made.execute(sql, parameters)


def select(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement; its rows."""
    with cursor() as made:
        made.execute(sql, parameters)
        found: list[tuple[Any, ...]] = made.fetchall()
        return found


def ask(sql: str) -> Callable[[], list[tuple[Any, ...]]]:
    """Run one statement now; what gives its rows, once.

    Within `at_once` they are not waited for before, so that what is asked for meanwhile comes in the same exchange.
    """
    if connection.vendor != "postgresql" or not is_at_once():
        found = select(sql)
        return lambda: found
    made = cursor()
    made.execute(sql, ())

    def answer() -> list[tuple[Any, ...]]:
        with made:
            found: list[tuple[Any, ...]] = made.fetchall()
            return found

    return answer


class UnreadableRowsError(Exception):
    """SQLite: among the selected rows is one that holds bytes where a text belongs."""


def rows(columns: Sequence[str], source: str, parameters: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Select `columns` from `source`, which is all that comes after FROM. None may be a float (see `float_column`).

    SQLite gives them as one value: it asks for the interpreter's lock once, and not once for each row.
    Raises `UnreadableRowsError`.
    """
    listed = ", ".join(columns)
    if connection.vendor == "postgresql":
        return select(f"SELECT {listed} FROM {source}", parameters)
    try:
        ((text,),) = select(f"SELECT CAST(json_group_array(json_array({listed})) AS BLOB) FROM {source}", parameters)
        found: list[list[Any]] = msgspec.json.decode(text)
    except (OperationalError, msgspec.MsgspecError, UnicodeError) as error:
        if isinstance(error, OperationalError) and "BLOB" not in str(error):
            raise
        raise UnreadableRowsError(str(error)) from error
    return found


@contextmanager
def at_once() -> Iterator[None]:
    """PostgreSQL: send the statements of the body one after the other, and wait for all of their answers at its end.

    What goes wrong is raised there, or by the next statement in it that has rows.
    """
    database = connections[DEFAULT_DB_ALIAS]
    if database.vendor == "postgresql":
        with database.wrap_database_errors, database.connection.pipeline():
            yield
    else:
        yield


def is_at_once() -> bool:
    """PostgreSQL: are we in the body of `at_once`? COPY can't be sent there."""
    return bool(connection.connection.info.pipeline_status)


def keep_few_pages() -> None:
    """Have this thread's connection keep 0.5 MiB of SQLite's pages, where the writer's keeps 6.

    For one that walks over a table, or reads each page once: 6 MiB more would do it no good.
    """
    if connection.vendor == "sqlite":
        execute("PRAGMA cache_size = -512")


@contextmanager
def checkpoints_left() -> Iterator[None]:
    """In the body, this thread's connection moves what SQLite's WAL holds into the file from 32 MiB on, and not from 4.

    For many rows: other connections do from 4 MiB when they commit, and the daemon's others do every second or two, so
    that a page that batch after batch writes is moved once, and no batch waits for it: 54 us a new skill instead of 69.
    Few rows wait longer where another thread is at it: 18 to 37 ms, one in a hundred, instead of 10.
    """
    if connection.vendor != "sqlite":
        yield
        return
    execute(f"PRAGMA wal_autocheckpoint = {_MANY_PAGES}")
    try:
        yield
    finally:
        if connection.connection is not None:
            execute(f"PRAGMA wal_autocheckpoint = {_PAGES}")


# Of 4 KiB; the smaller is SQLite's own.
_PAGES, _MANY_PAGES = 1000, 8192


def cursor() -> Any:
    """Django's cursor, but one that leaves a statement as it is, so that the database prepares it once.

    Django's own writes the parameters into the text for PostgreSQL: another statement each time. For SQLite it looks
    for placeholders anew in each text: 1 ms in one of many rows.
    """
    database = connections[DEFAULT_DB_ALIAS]  # each look at `connection` is a search for this thread's own
    if database.connection is None:  # outside a transaction nobody has yet, and after a lost one it is gone
        database.ensure_connection()
    made = _CURSORS[database.vendor](database)
    return database.make_debug_cursor(made) if database.queries_logged else database.make_cursor(made)


def _sqlite_cursor(database: Any) -> Any:
    return database.connection.cursor(factory=_Known)


class _Known(SQLiteCursorWrapper):
    """Looks for the placeholders of a text once."""

    def convert_query(self, query: str, *, param_names: list[str] | None = None) -> str:
        return _with_marks(query)


@lru_cache(maxsize=256)
def _with_marks(query: str) -> str:
    return FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


def _postgres_cursor(database: Any) -> Any:
    unprepared = database.queries_logged or is_shared_per_transaction(database)
    return _postgres_cursors()[unprepared](database.connection)


@cache
def _postgres_cursors() -> tuple[type, type]:
    from psycopg import Cursor  # not there where SQLite alone is used

    class Prepared(Cursor[tuple[Any, ...]]):
        prepare = True

        def execute(self, query: Any, params: Any = None, **_: Any) -> Any:
            return super().execute(query, params, prepare=self.prepare)

    class Unprepared(Prepared):
        prepare = False  # of a prepared statement psycopg keeps no text that could be logged

    return Prepared, Unprepared


_CURSORS = {"sqlite": _sqlite_cursor, "postgresql": _postgres_cursor}


def among(column: str, keys: Collection[str]) -> tuple[str, tuple[Any, ...]]:
    """The condition that `column` is one of `keys`, with its parameters: one, however many keys there are."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", (list(keys),)
    return f"{column} IN (SELECT value FROM json_each(%s))", (_encode(list(keys)).decode(),)


def json_column(column: str) -> str:
    """An expression that gives a JSON column as text for `json_value`."""
    return f"{column}::text" if connection.vendor == "postgresql" else column


def json_value(text: str, opening: str) -> Any:
    """The value of held JSON, by the same reading as what was received. `opening`: "[" or "{", what it is to be.

    Raises `UnreadableRowsError`, or `DecodeError` where it is no JSON.
    """
    if text == "[]" == opening + "]":
        return []
    if text == "{}" == opening + "}":
        return {}
    if not text.startswith(opening):
        raise UnreadableRowsError("JSON of another kind")
    return read_json(text.encode())[0]


def json_text(value: Any) -> str:
    """The text of what a JSON column is to hold."""
    return _encode(value).decode() if value else _EMPTY.get(type(value)) or _encode(value).decode()


_EMPTY: dict[type, str] = {list: "[]", dict: "{}"}


def text_size(column: str) -> str:
    """An expression for the bytes of a text or JSON column."""
    if connection.vendor == "postgresql":
        return f"octet_length({column}::text)"
    return f"length(CAST({column} AS BLOB))"  # of a text it would count the characters


def float_column(column: str) -> str:
    """An expression that gives a column of floats, none of them negative, for `stored_float`.

    SQLite's JSON keeps 15 digits, and 17 are needed. Numbers so small that it would have to scale them by more than it
    can without rounding are "".
    """
    if connection.vendor == "postgresql":
        return column
    return f"CASE WHEN {column} = 0 OR {column} >= 1e-9 THEN printf('%%!.17g', {column}) WHEN {column} > 0 THEN '' END"


def stored_float(told: str | float | None, look: Callable[[], float]) -> float | None:
    """The value of a column of floats (see `float_column`). `look`: reads the column as it is."""
    if told == "":
        return look()
    return None if told is None else float(told)


def time_column(column: str) -> str:
    """An expression that gives a time column as text for `stored_stamp`."""
    if connection.vendor == "postgresql":
        return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
    return f"replace({column}, ' ', 'T')"


def stored_stamp(text: str | None) -> Stamp | None:
    """The stamp of a time column (see `time_column`)."""
    if text is None:
        return None
    return Stamp(text.rstrip("0").rstrip(".") if "." in text else text)


def moment_value(moment: datetime) -> str:
    """An aware `datetime` as either database's columns take it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def stamp_value(stamp: Stamp | None) -> str | None:
    """A server's time likewise; `None` for none."""
    return None if stamp is None else to_microseconds(stamp).replace("T", " ")
