"""At most N occasions in any 60 s: the marketplace's limit for requests and for connection attempts."""

from collections import deque


class RequestWindow:
    """A window that may burst and slides. `limit` 0 is none. Times are monotonic seconds."""

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self.limit = limit
        self.seconds = seconds
        self._admitted: deque[float] = deque()

    def admit(self, now: float) -> float | None:
        """`None`: admitted and counted. Otherwise the seconds until there is room; nothing is counted."""
        if not self.limit:
            return None
        while self._admitted and self._admitted[0] <= now - self.seconds:
            self._admitted.popleft()
        if len(self._admitted) < self.limit:
            self._admitted.append(now)
            return None
        return self._admitted[0] + self.seconds - now
