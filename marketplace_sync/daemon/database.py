"""The database from asyncio: plain functions, each in one of two threads with a connection of its own.

Django's ORM blocks. One thread writes batches, the other does all the small things (lease, state row,
commands), so that a slow batch does not keep the lease from being renewed. A hop costs 0.3 ms:
one a batch, never one a message.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connections

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)

# How long a database that is locked, restarting or away is waited for before the daemon gives up
# loudly: a supervisor's restart is then the better answer.
PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


class Database:
    """Two threads. Functions given to `write` and `control` must be safe to run again after a lost connection.

    `retries` counts the times that they had to be.
    """

    def __init__(self) -> None:
        self.retries = 0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mirror-writer")
        self._control = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mirror-control")

    async def write(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a batch in the writer's thread."""
        return await self._patiently(self._writer, lambda: function(*args, **kwargs))

    async def control(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something small in the other thread."""
        return await self._patiently(self._control, lambda: function(*args, **kwargs))

    async def _patiently(self, pool: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        tries = 0
        while True:
            try:
                return await loop.run_in_executor(pool, function)
            except (OperationalError, InterfaceError) as fault:
                if loop.time() >= deadline:
                    raise
                self.retries += 1
                log.warning("database_retry", reason=str(fault).strip(), tries=tries + 1)
                await loop.run_in_executor(pool, connections.close_all)
            await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
            tries += 1

    async def close(self) -> None:
        """Close both connections and end both threads."""
        loop = asyncio.get_running_loop()
        for pool in (self._writer, self._control):
            await loop.run_in_executor(pool, connections.close_all)
            pool.shutdown(wait=False)
