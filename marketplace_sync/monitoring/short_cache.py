"""A cache of one second for answers that many clients request: however many probe, the database is read once."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_AGE_SECONDS = 1.0
# A thread that waits longer for another thread's read gets an error.
LOCK_TIMEOUT_SECONDS = 5.0


class ReadTimeoutError(Exception):
    """Another thread's read has not ended in time."""


class ShortCache(Generic[T]):
    """Cache the result of `read`, which runs at most once per second and in one thread at a time; not its errors."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._cached: tuple[float, T] | None = None

    def __call__(self) -> T:
        """Return the result. Raise `ReadTimeoutError`, and what `read` raises."""
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_SECONDS):
            raise ReadTimeoutError
        try:
            if self._cached is None or time.monotonic() - self._cached[0] >= MAX_AGE_SECONDS:
                self._cached = (time.monotonic(), self._read())
            return self._cached[1]
        finally:
            self._lock.release()

    def clear(self) -> None:
        """Read again at the next call."""
        self._cached = None
