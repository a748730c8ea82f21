"""Count events per key in a sliding window, in this process."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

# Above this many keys the one that has been quiet for the longest time is dropped, so memory is bounded.
_MOST_KEYS = 10_000


class SlidingWindow:
    """Allow at most `limit` events per key in any period of `seconds`.

    The counts are in the process: a request depends on no other service for them, and never waits. Several web
    processes together therefore allow that many times as much. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        limit: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_keys: int = _MOST_KEYS,
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._most_keys = most_keys
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def admit(self, key: str) -> float | None:
        """Count an event and return `None`; over the limit return the seconds until the next is admitted, uncounted."""
        now = self._clock()
        with self._lock:
            times = self._recent(key, now)
            if len(times) >= self._limit:
                return times[0] + self._seconds - now
            times.append(now)
            self._times[key] = times
            self._times.move_to_end(key)
            if len(self._times) > self._most_keys:
                self._times.popitem(last=False)
            return None

    def take_back(self, key: str) -> None:
        """Undo the latest `admit` of this key."""
        with self._lock:
            times = self._times.get(key)
            if times:
                times.pop()
            if times is not None and not times:
                del self._times[key]

    def wait(self, key: str) -> float | None:
        """Return what `admit` would return, without counting."""
        now = self._clock()
        with self._lock:
            times = self._recent(key, now)
            return times[0] + self._seconds - now if len(times) >= self._limit else None

    def count(self, key: str) -> int:
        """Return how many events were counted within the window."""
        now = self._clock()
        with self._lock:
            return len(self._recent(key, now))

    def clear(self) -> None:
        """Drop all counts."""
        with self._lock:
            self._times.clear()

    def _recent(self, key: str, now: float) -> deque[float]:
        times = self._times.get(key)
        if times is None:
            return deque()
        while times and times[0] <= now - self._seconds:
            times.popleft()
        return times
