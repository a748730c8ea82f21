"""Answers that many ask for and one look a second is enough for: a storm of probes is one load on the database."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_SECONDS = 1.0
# Who waits for a look that somebody else has begun, and that does not end, is told so.
PATIENCE_SECONDS = 5.0


class LookTimeoutError(Exception):
    """Somebody else's look has not ended in time."""


class Briefly(Generic[T]):
    """The answer of `look`, called once a second at most and by one thread at a time. What it raises is not kept."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def __call__(self) -> T:
        """Raises `LookTimeoutError`, and what `look` raises."""
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            raise LookTimeoutError
        try:
            if self._kept is None or time.monotonic() - self._kept[0] >= KEPT_SECONDS:
                self._kept = (time.monotonic(), self._look())
            return self._kept[1]
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Look anew at the next call."""
        self._kept = None
