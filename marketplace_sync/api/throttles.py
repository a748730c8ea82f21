"""How much one actor may ask for."""

from typing import Any

from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from marketplace_sync.api.permissions import actor_behind
from marketplace_sync.governance.sliding_window import SlidingWindow

# Requests a second (INTERFACE.md, HTTP API).
requests_of_actors = SlidingWindow(100, 1.0)


class PerActor(BaseThrottle):
    """429 with `Retry-After` past the limit. Permissions come first, so there always is an actor."""

    def __init__(self) -> None:
        self._wait: float | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        self._wait = requests_of_actors.admit(actor_behind(request).ident)
        return self._wait is None

    def wait(self) -> float | None:
        return self._wait
