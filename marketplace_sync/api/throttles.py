"""How much one actor may ask for, and how much of it at the same time."""

from collections import Counter
from threading import Lock
from typing import Any

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
    requests per second.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._taken: Counter[str] = Counter()

    def take(self, actor: str) -> bool:
        """Take a place for a request of this actor; false where it has them all."""
        with self._lock:
            if self._taken[actor] >= self._limit:
                return False
            self._taken[actor] += 1
            return True

    def give_back(self, actor: str) -> None:
        """Give a place back that was taken."""
        with self._lock:
            self._taken[actor] -= 1
            if not self._taken[actor]:
                del self._taken[actor]

    def taken(self) -> dict[str, int]:
        """Return how many places each actor has now."""
        with self._lock:
            return dict(self._taken)


places_of_actors = Places(AT_ONCE)


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
