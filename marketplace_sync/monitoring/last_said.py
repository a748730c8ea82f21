"""What was said last, so that the log has one line per change and not one per probe."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LastReported(Generic[T]):
    """Remember one value for all threads of this process."""

    def __init__(self, first: T) -> None:
        self._lock = threading.Lock()
        self._last = first

    def differs(self, now: T) -> bool:
        """Return whether this is another value than the last time, and remember it."""
        with self._lock:
            before, self._last = self._last, now
        return now != before
