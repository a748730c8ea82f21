"""The value that was logged last, so that the log has one line per change and not one per probe."""

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LastReported(Generic[T]):
    """Remember one value for all threads of this process."""

    def __init__(self, first: T) -> None:
        self._lock = threading.Lock()
        self._last = first

    def changes_to(self, now: T) -> bool:
        """Remember the value, and return whether it is another one than before."""
        with self._lock:
            before, self._last = self._last, now
        return now != before
