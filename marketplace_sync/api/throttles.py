"""Limits per actor: requests per second, and requests at the same time."""

from collections import Counter
from threading import Condition
from typing import Any

from django.db import connection
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from marketplace_sync.api.permissions import actor_behind
from marketplace_sync.governance.sliding_window import SlidingWindow

# At most 100 requests per second, and 4 at the same time.
REQUESTS, SECONDS, MAX_CONCURRENT = 100, 1, 4

requests_of_actors = SlidingWindow(REQUESTS, SECONDS)


class ActorThrottle(BaseThrottle):
    """Answer 429 with `Retry-After` over the limit. Permissions are checked first, so there is an actor."""

    def __init__(self) -> None:
        self._wait: float | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        self._wait = requests_of_actors.admit(actor_behind(request).ident)
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait


class ConcurrencyLimit:
    """At most `limit` requests per actor at the same time, in this process.

    Without it one actor could occupy every thread and every database connection of the process, and still stay within
    its requests per second. `queue`: how many more requests of each actor may wait for a slot; each occupies a thread.
    """

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._queue = queue
        self._released = Condition()
        self._occupied: Counter[str] = Counter()
        self._queued: Counter[str] = Counter()

    def acquire(self, actor: str, timeout: float = 0.0) -> bool:
        """Occupy a slot of this actor; false if all are still occupied after `timeout` seconds.

        A waiting request has no database connection.
        """
        with self._released:
            if self._is_free(actor):
                self._occupied[actor] += 1
                return True
            if timeout <= 0 or self._queued[actor] >= self._queue:
                return False
            self._queued[actor] += 1
        if not connection.in_atomic_block:
            connection.close()
        with self._released:
            free = self._released.wait_for(lambda: self._is_free(actor), timeout)
            self._occupied[actor] += free
            self._queued[actor] -= 1
            if not self._queued[actor]:
                del self._queued[actor]
            return free

    def _is_free(self, actor: str) -> bool:
        return self._occupied[actor] < self._limit

    def release(self, actor: str) -> None:
        """Free a slot of this actor."""
        with self._released:
            self._occupied[actor] -= 1
            if not self._occupied[actor]:
                del self._occupied[actor]
            if self._queued:
                self._released.notify_all()

    def occupied(self) -> dict[str, int]:
        """Return how many slots each actor occupies now."""
        with self._released:
            return dict(self._occupied)

    def queued(self) -> dict[str, int]:
        """Return how many requests of each actor wait for a slot now."""
        with self._released:
            return dict(self._queued)


slots_of_actors = ConcurrencyLimit(MAX_CONCURRENT, queue=4 * MAX_CONCURRENT)


def rate_headers(actor: str) -> dict[str, str]:
    """Return the headers with what an actor has left: those of the IETF's RateLimit draft and of its first versions."""
    left = max(REQUESTS - requests_of_actors.count(actor), 0)
    return {
        "RateLimit-Policy": f'"requests";q={REQUESTS};w={SECONDS}, '
        f'"concurrent";q={MAX_CONCURRENT};qu="concurrent-requests"',
        "RateLimit": f'"requests";r={left};t={SECONDS}',
        "RateLimit-Limit": str(REQUESTS),
        "RateLimit-Remaining": str(left),
        "RateLimit-Reset": str(SECONDS),
    }
