"""Database access from the web server's event loop: plain functions run in a thread that closes its connection."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import Error, connections

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThread:
    """One thread that runs one function at a time. Its connection is closed when none waits, unless `keep_open`."""

    def __init__(self, name: str, *, keep_open: bool = False) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._keep_open = keep_open
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the database. Raise what it raises; after a database error, reconnect."""
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: _call(function, *args, **kwargs)
            )
        finally:
            self._waiting -= 1
            if not self._keep_open and not self._waiting:
                self._pool.submit(connections.close_all)

    async def close_connection(self) -> None:
        """Close the connection, after all functions that wait."""
        await asyncio.get_running_loop().run_in_executor(self._pool, connections.close_all)


def _call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except Error:
        connections.close_all()
        raise
