"""Limit requests and connection attempts, as the marketplace does: at most N in any 60 s."""

from collections import deque


class RequestWindow:
    """A sliding window, in which bursts are allowed. `limit` 0: no limit. Times are monotonic seconds."""

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self.limit = limit
        self.seconds = seconds
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> float | None:
        """Count one request and return `None`; at the limit, return the seconds until one is admitted."""
        if not self.limit:
            return None
        while self._admitted and self._admitted[0] <= now - self.seconds:
            self._admitted.popleft()
        if len(self._admitted) < self.limit:
            self._admitted.append(now)
            return None
        return self._admitted[0] + self.seconds - now
