"""How much one actor may ask for, and how much of it at the same time."""

from collections import Counter
from threading import Condition
from typing import Any

from django.db import connection
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from marketplace_sync.api.permissions import actor_behind
from marketplace_sync.governance.sliding_window import SlidingWindow

# Requests per so many seconds, and at the same time (INTERFACE.md, HTTP API).
REQUESTS, SECONDS, AT_ONCE = 100, 1, 4

requests_of_actors = SlidingWindow(REQUESTS, SECONDS)


class PerActor(BaseThrottle):
    """429 with `Retry-After` past the limit. Permissions come first, so there always is an actor."""

    def __init__(self) -> None:
        self._wait: float | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        self._wait = requests_of_actors.admit(actor_behind(request).ident)
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait


class Places:
    """At most `limit` requests of each actor at the same time, in this process.

    Without it one actor could have every thread and every database connection of the process, and still be within its
    requests per second. `queue`: how many more of each actor may wait for a place; each has a thread meanwhile.
    """

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._queue = queue
        self._changed = Condition()
        self._taken: Counter[str] = Counter()
        self._queued: Counter[str] = Counter()

    def take(self, actor: str, patience: float = 0.0) -> bool:
        """Take a place for a request of this actor; false where it has them all, after `patience` seconds still.

        A request that waits for one holds no database connection.
        """
        with self._changed:
            if self._is_free(actor):
                self._taken[actor] += 1
                return True
            if patience <= 0 or self._queued[actor] >= self._queue:
                return False
            self._queued[actor] += 1
        if not connection.in_atomic_block:
            connection.close()
        with self._changed:
            free = self._changed.wait_for(lambda: self._is_free(actor), patience)
            self._taken[actor] += free
            self._queued[actor] -= 1
            if not self._queued[actor]:
                del self._queued[actor]
            return free

    def _is_free(self, actor: str) -> bool:
        return self._taken[actor] < self._limit

    def give_back(self, actor: str) -> None:
        """Give a place back that was taken."""
        with self._changed:
            self._taken[actor] -= 1
            if not self._taken[actor]:
                del self._taken[actor]
            if self._queued:
                self._changed.notify_all()

    def taken(self) -> dict[str, int]:
        """Return how many places each actor has now."""
        with self._changed:
            return dict(self._taken)

    def queued(self) -> dict[str, int]:
        """Return how many requests of each actor wait for a place now."""
        with self._changed:
            return dict(self._queued)


places_of_actors = Places(AT_ONCE, queue=4 * AT_ONCE)


def rate_headers(actor: str) -> dict[str, str]:
    """Return what an actor has left, by the IETF's draft on RateLimit header fields and by its first versions."""
    left = max(REQUESTS - requests_of_actors.count(actor), 0)
    return {
        "RateLimit-Policy": f'"requests";q={REQUESTS};w={SECONDS}, "concurrent";q={AT_ONCE};qu="concurrent-requests"',
        "RateLimit": f'"requests";r={left};t={SECONDS}',
        "RateLimit-Limit": str(REQUESTS),
        "RateLimit-Remaining": str(left),
        "RateLimit-Reset": str(SECONDS),
    }
