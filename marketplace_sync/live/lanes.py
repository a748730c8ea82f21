"""The database from the web server's event loop: plain functions in threads of ours, whose connections are let go."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import Error, connections

P = ParamSpec("P")
T = TypeVar("T")


class Subscription:
    """One thread, one function at a time. Its connection is let go when nothing more waits, unless `keeps` it."""

    def __init__(self, name: str, *, keeps: bool = False) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._keeps = keeps
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that uses the database. Raises what it raises; a database's fault ends the connection."""
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: _called(function, *args, **kwargs)
            )
        finally:
            self._waiting -= 1
            if not self._keeps and not self._waiting:
                self._pool.submit(connections.close_all)

    async def let_go(self) -> None:
        """Close its connection, after all that waits."""
        await asyncio.get_running_loop().run_in_executor(self._pool, connections.close_all)


def _called(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except Error:
        connections.close_all()
        raise
