"""How often something happened lately, within this process."""

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

# Above this many keys those that have been quiet for a window are forgotten, so memory is bounded by the traffic.
_SWEEP_ABOVE = 10_000


class SlidingWindow:
    """At most `limit` of something in any `seconds`, for each key.

    Counted in the process: no service that can fail stands between a request and its answer, and nobody's requests
    wait for a counter. Several web processes therefore allow that many times as much. `clock` is monotonic, seconds.
    """

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        self._lock = Lock()

    def admit(self, key: str) -> float | None:
        """Count one more, unless there are too many: then the seconds until the next is admitted, and no count."""
        now = self._clock()
        with self._lock:
            if len(self._times) > _SWEEP_ABOVE:
                self._sweep(now)
            times = self._times.setdefault(key, deque())
            while times and times[0] <= now - self._seconds:
                times.popleft()
            if len(times) >= self._limit:
                return times[0] + self._seconds - now
            times.append(now)
            return None

    def wait(self, key: str) -> float | None:
        """What `admit` would say, without counting."""
        now = self._clock()
        with self._lock:
            times = [at for at in self._times.get(key, ()) if at > now - self._seconds]
            return times[0] + self._seconds - now if len(times) >= self._limit else None

    def clear(self) -> None:
        """Forget all that happened."""
        with self._lock:
            self._times.clear()

    def _sweep(self, now: float) -> None:
        self._times = {key: times for key, times in self._times.items() if times and times[-1] > now - self._seconds}
