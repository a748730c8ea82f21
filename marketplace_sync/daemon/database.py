"""Call the database from asyncio: plain functions run in one of four threads, each with a connection of its own.

Django's ORM blocks, so no call runs in the event loop. One thread writes batches, one plans large batches meanwhile,
one renews the lease, and one does everything else: the state row, commands, runs, what a full sync finds absent. So
neither a slow batch nor a long query keeps the lease from being renewed. A hop to a thread costs 0.3 ms: one per batch,
two for a large one, never one per message.

A call waits up to `PATIENCE_SECONDS` for a database that is locked, restarting, read-only or unreachable. That is
longer than the lease. A standby that reaches the database sooner may take over meanwhile; then the epoch keeps this
daemon from writing. If none has, it continues. After that time the daemon ends with an error, also when a query never
returns.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from django.db import InterfaceError, InternalError, OperationalError, connection, connections

from marketplace_sync.mirror.dialects import dialect

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)

# How long a call waits for a database in trouble before the daemon ends with an error: a supervisor's restart is then
# the better answer.
PATIENCE_SECONDS = 60.0
# The limit for a query over every row, which may take minutes.
_SURVEY_SECONDS = 3600.0
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
# A thread that has not returned this long after the stop is stuck in the database.
_CLOSE_SECONDS = 2.0
# Errors that may not occur again at the next try. InternalError is raised after a fail-over to a read-only server
# (SQLSTATE 25006), and when the server has ended a session within a transaction (25P03).
PASSING = (OperationalError, InterfaceError, InternalError)


class DatabaseTimeoutError(OperationalError):
    """A query, or the wait for one before it, has not returned in time."""


class DbThread:
    """Run functions one after the other in a thread with a database connection of its own.

    The functions must be safe to run again, because a connection may be lost after the commit. `retries` counts the
    repeated runs. `prepare` runs before the first query of each new connection.
    """

    def __init__(self, name: str, *, prepare: Callable[[], None] = lambda: None) -> None:
        self.retries = 0
        self._prepare = prepare
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"mirror-{name}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; retry for `PATIENCE_SECONDS` while the database is in trouble."""
        return await self.run_within(PATIENCE_SECONDS, function, *args, **kwargs)

    async def run_within(self, patience: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; retry for `patience` seconds while the database is in trouble.

        Raise the database's last error, or `DatabaseTimeoutError` if a query has not returned by then.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        tries = 0
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await loop.run_in_executor(self._executor, self._call, lambda: function(*args, **kwargs))
            except TimeoutError:
                raise DatabaseTimeoutError(f"nothing came back for {patience:g} s") from None
            except PASSING as error:
                wait = _RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)]
                if loop.time() + wait >= deadline:
                    raise
                self.retries += 1
                log.warning("database_retry", reason=str(error).strip(), tries=tries + 1)
            await asyncio.sleep(wait)
            tries += 1

    def _call(self, function: Callable[[], T]) -> T:
        """Call it in the thread. After a database error the next call gets a new connection."""
        try:
            if connection.connection is None:
                self._prepare()
            return function()
        except PASSING:
            connections.close_all()
            raise

    async def close(self) -> bool:
        """Close the connection and end the thread. Return `False` if it hangs in the database."""
        closing = asyncio.get_running_loop().run_in_executor(self._executor, connections.close_all)
        _, hanging = await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return not hanging


class Database:
    """The daemon's four threads, by what they do."""

    def __init__(self) -> None:
        self._writer = DbThread("writer")
        self._planner = DbThread("planner", prepare=lambda: dialect().keep_few_pages())
        self._control = DbThread("control")
        self._keeper = DbThread("lease")
        self._threads = (self._writer, self._planner, self._control, self._keeper)

    @property
    def retries(self) -> int:
        """Return how often a function had to be run again, since the start."""
        return sum(thread.retries for thread in self._threads)

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Write a batch."""
        return await self._writer.run(function, *args, **kwargs)

    async def plan(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read what the next batch needs and plan it, while another one is being written."""
        return await self._planner.run(function, *args, **kwargs)

    async def control(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run anything that is neither a batch nor the lease's renewal."""
        return await self._control.run(function, *args, **kwargs)

    async def keep(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Renew the lease."""
        return await self._keeper.run(function, *args, **kwargs)

    async def survey(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query over every row, which may take minutes; no batch is planned meanwhile."""
        return await self._planner.run_within(_SURVEY_SECONDS, function, *args, **kwargs)

    async def close(self) -> bool:
        """Close the connections and end the threads. Return `False` if one of them hangs in the database."""
        return all(await asyncio.gather(*(thread.close() for thread in self._threads)))
