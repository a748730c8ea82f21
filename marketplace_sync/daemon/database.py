"""The database from asyncio: plain functions, each in one of four threads with a connection of its own.

Django's ORM blocks. One thread writes batches, one plans large ones meanwhile, one renews the lease, one does all else
(state row, commands, runs, what a pass finds absent), so that neither a slow batch nor a long look keeps the lease from
being renewed. A hop costs 0.3 ms: one a batch, two for a large one, never one a message.

A database that is locked, restarting, read-only or away is waited for, `PATIENCE_SECONDS` a call. That is longer than
the lease: a standby that reaches the database sooner may take over meanwhile, and then the epoch keeps us from
writing; where nobody has, we go on. After that the daemon ends loudly, also when a query simply never returns.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from django.db import InterfaceError, InternalError, OperationalError, connection, connections

from marketplace_sync.mirror.sql import keep_few_pages

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)

# How long a call waits for a database in trouble before the daemon gives up loudly: a supervisor's restart is then
# the better answer.
# A look at every row takes as long as it takes.
_SURVEY_SECONDS = 3600.0
PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
# A thread that has not come back by then, at the end, is stuck in the database.
_CLOSE_SECONDS = 2.0
# What may be over at the next try. InternalError is what a fail-over to read-only raises (SQLSTATE 25006), and a
# session that the server ended within a transaction (25P03).
PASSING = (OperationalError, InterfaceError, InternalError)


class DatabaseTimeoutError(OperationalError):
    """A query, or the wait for one before it, has not come back in time."""


class Database:
    """Four threads. What they are given must be safe to run again: a connection may be lost after the commit.

    `retries` counts the times that it had to be.
    """

    def __init__(self) -> None:
        self.retries = 0
        self._writer, self._planner, self._control, self._keeper = self._threads = tuple(
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"mirror-{name}")
            for name in ("writer", "planner", "control", "lease")
        )
        # What a new connection of a thread is told.
        self._ready = {self._planner: keep_few_pages}

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a batch in the writer's thread."""
        return await self._patiently(self._writer, lambda: function(*args, **kwargs))

    async def plan(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read what the next batch needs, decide and make its rows, while one is being written."""
        return await self._patiently(self._planner, lambda: function(*args, **kwargs))

    async def control(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something else that is no batch."""
        return await self._patiently(self._control, lambda: function(*args, **kwargs))

    async def keep(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what keeps the lease."""
        return await self._patiently(self._keeper, lambda: function(*args, **kwargs))

    async def survey(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a look at every row, which may take minutes; no batch is planned meanwhile."""
        return await self._patiently(self._planner, lambda: function(*args, **kwargs), _SURVEY_SECONDS)

    async def _patiently(self, thread: ThreadPoolExecutor, function: Callable[[], T], patience: float = 0.0) -> T:
        loop = asyncio.get_running_loop()
        patience = patience or PATIENCE_SECONDS
        deadline = loop.time() + patience
        tries = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await loop.run_in_executor(thread, _called, function, self._ready.get(thread))
            except TimeoutError:
                raise DatabaseTimeoutError(f"nothing came back for {patience:g} s") from None
            except PASSING as fault:
                wait = _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)]
                if loop.time() + wait >= deadline:
                    raise
                self.retries += 1
                log.warning("database_retry", reason=str(fault).strip(), tries=tries + 1)
            await asyncio.sleep(wait)
            tries += 1

    async def close(self) -> bool:
        """Close the connections and end the threads; `False` when one of them hangs in the database."""
        loop = asyncio.get_running_loop()
        closing = [loop.run_in_executor(thread, connections.close_all) for thread in self._threads]
        _, hanging = await asyncio.wait(closing, timeout=_CLOSE_SECONDS)
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        return not hanging


def _called(function: Callable[[], T], ready: Callable[[], None] | None) -> T:
    """Call it; after a fault of the database the next call has a new connection, perhaps to another server."""
    try:
        if ready is not None and connection.connection is None:
            ready()
        return function()
    except PASSING:
        connections.close_all()
        raise
