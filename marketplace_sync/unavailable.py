"""Explain why the database could not serve a request, and how long the client should wait.

Database errors that a retry can cure are answered with 503. All others are bugs and stay a 500.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import InterfaceError, InternalError, OperationalError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The reason why a request could not be served. `retry_after`: seconds; `advice`: what a person can do."""

    code: str
    title: str
    detail: str
    advice: str
    retry_after: int


LOCKED = Unavailable(
    "database_locked",
    "The database is locked",
    "Another process keeps the database locked, so nothing could be written. Nothing was changed.",
    "Send the request again in a few seconds. If this lasts, look for a program that keeps a transaction open.",
    5,
)
BUSY = Unavailable(
    "database_busy",
    "The database has no free connection",
    "No connection to the database became free in time: all are in use, or the database does not answer.",
    "Send the request again in a few seconds. If this lasts, see /health/ready for the cause.",
    5,
)
TIMEOUT = Unavailable(
    "database_timeout",
    "The database took too long",
    "The database did not finish the query in time, so the query was cancelled.",
    "Narrow the list with a filter or a longer search text. Under high load, try again later.",
    30,
)
READ_ONLY = Unavailable(
    "database_read_only",
    "The database is read-only",
    "The database accepts no writes at the moment, as during a fail-over. Nothing was changed.",
    "Reading works. Try again when the database accepts writes again.",
    30,
)
FULL = Unavailable(
    "database_full",
    "The database's disk is full",
    "The database has no space left, so nothing could be written. Nothing was changed.",
    "Free space on the disk of the database, then try again.",
    60,
)
AWAY = Unavailable(
    "database_away",
    "The database does not answer",
    "The connection to the database failed.",
    "Check that the database runs, and see /health/ready. The page works again as soon as the database does.",
    10,
)

_SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_INTERRUPT: TIMEOUT,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CANTOPEN: AWAY,
    sqlite3.SQLITE_IOERR: AWAY,
}
# By SQLSTATE; the longest matching prefix counts.
_POSTGRES = {
    "57014": TIMEOUT,  # query_canceled: statement_timeout
    "55P03": LOCKED,  # lock_not_available: lock_timeout
    "40P01": LOCKED,  # deadlock_detected
    "40001": LOCKED,  # serialization_failure
    "25006": READ_ONLY,
    "53300": BUSY,  # too_many_connections
    "53100": FULL,
    "57P": AWAY,  # the server shuts down, or starts
    "08": AWAY,
    "25P03": AWAY,  # idle_in_transaction_session_timeout ended the session
}


def reason_of(error: BaseException) -> Unavailable | None:
    """Return why the database could not serve; `None` for an error that no retry cures."""
    for each in _chain(error):
        if type(each).__module__.startswith("psycopg_pool"):
            return BUSY
        if isinstance(each, sqlite3.Error):
            return _SQLITE.get((getattr(each, "sqlite_errorcode", None) or 0) & 0xFF)
        state = _sqlstate(each)
        if state is not None:
            return next((_POSTGRES[state[:size]] for size in (5, 3, 2) if state[:size] in _POSTGRES), None)
    # psycopg reports a connection that could not be opened, or was lost, without a SQLSTATE.
    lost = isinstance(error, OperationalError | InterfaceError | InternalError)
    return AWAY if lost and any(type(each).__module__.startswith("psycopg") for each in _chain(error)) else None


def report(reason: Unavailable, path: str, error: BaseException | None) -> None:
    """Log in one line that a request to `path` was answered with 503."""
    log.warning("request_unavailable", path=path, code=reason.code, reason=" ".join(str(error).split()))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _sqlstate(error: Any) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None
