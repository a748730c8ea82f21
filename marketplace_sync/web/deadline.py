"""Limit the duration of a web process's statements: the database cancels longer ones, and the answer is 503.

PostgreSQL has a setting for that. SQLite calls a function of ours every million steps, about every 20 ms, which costs
no measurable time. A lookup that is a Python function itself (`REGEXP`) would block the interpreter within one step;
the admin's lists accept none (`admin.restricted_list`).
"""

import time
from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.signals import connection_created

from marketplace_sync.postgres import set_up_sessions

_STEPS = 1_000_000
# Seconds that count at most between two calls: a statement that waits for a lock or for its reader is idle.
_LONGEST_STEP = 2.0


class _Statement:
    """Measure how long the current statement of one connection has been running."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._spent = 0.0
        self._seen = clock()

    def begin(self, execute: Callable[..., Any], *args: Any) -> Any:
        """Start measuring the next statement; a Django `execute_wrapper`."""
        self._spent, self._seen = 0.0, self._clock()
        return execute(*args)

    def is_over(self) -> bool:
        """Return whether the time is used up; SQLite's progress handler, where `True` interrupts the statement."""
        now = self._clock()
        self._spent += min(now - self._seen, _LONGEST_STEP)
        self._seen = now
        return self._spent > self._seconds


def limit_statements(seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Cancel statements of this process that take longer; 0: no limit. Open connections are not affected.

    Not for the daemon, whose statements may be long, nor for migrations.
    """
    if not seconds:
        return
    set_up_sessions(statement_timeout=f"{round(seconds * 1000)}ms")

    def watch(connection: Any, **_: Any) -> None:
        if connection.vendor != "sqlite" or connection.alias != DEFAULT_DB_ALIAS:
            return
        statement = _Statement(seconds, clock)
        connection.connection.set_progress_handler(statement.is_over, _STEPS)
        ours = [each for each in connection.execute_wrappers if isinstance(getattr(each, "__self__", None), _Statement)]
        for each in ours:  # of the previous connection of this object
            connection.execute_wrappers.remove(each)
        connection.execute_wrappers.append(statement.begin)

    connection_created.connect(watch, weak=False, dispatch_uid=__name__)
