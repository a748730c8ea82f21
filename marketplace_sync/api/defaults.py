"""The base classes of all views. They do not depend on `REST_FRAMEWORK` of the project that embeds this app."""

from collections.abc import Callable
from typing import Any

from django.db.transaction import non_atomic_requests
from django.utils.cache import patch_vary_headers
from django_filters.rest_framework import DjangoFilterBackend  # type: ignore[import-untyped]
from rest_framework.exceptions import Throttled
from rest_framework.parsers import JSONParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace_sync.api.authentication import BearerAuthentication, PersonAuthentication
from marketplace_sync.api.errors import answer_error
from marketplace_sync.api.negotiation import FixedFormat
from marketplace_sync.api.pagination import Pagination
from marketplace_sync.api.permissions import IsActor, actor_behind
from marketplace_sync.api.rendering import Renderer
from marketplace_sync.api.throttles import MAX_CONCURRENT, ActorThrottle, rate_headers, slots_of_actors
from marketplace_sync.governance.actors import Actor

# No cache may store it, nor serve it to another person or key.
PRIVATE = "private, no-store"
VARY_ON = ("Authorization", "Cookie")


class Guarded(APIView):
    """Authentication, permissions, limits and error format. No anonymous access, unless a view allows it explicitly.

    Every answer, refusals included, is for one client: no proxy may serve it to another.
    """

    # The key comes first, because the first class names the scheme of a 401.
    authentication_classes = (BearerAuthentication, PersonAuthentication)
    permission_classes = (IsActor,)
    throttle_classes = (ActorThrottle,)
    versioning_class = None

    _slot: str | None = None  # the actor whose slot this request occupies

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the view. It opens its own transactions, even with `ATOMIC_REQUESTS`.

        A transaction around the request would roll back the audit row of a refusal.
        """
        return non_atomic_requests(super().as_view(*args, **kwargs))

    def get_exception_handler(self) -> Callable[..., Any]:
        return answer_error

    def check_throttles(self, request: Request) -> None:
        super().check_throttles(request)
        actor = actor_behind(request).ident
        if not slots_of_actors.acquire(actor, self.slot_timeout(request)):
            detail = f"At most {MAX_CONCURRENT} requests per actor are served at the same time."
            raise Throttled(1, detail, "too_many_at_once")
        self._slot = actor

    def slot_timeout(self, request: Request) -> float:
        """Return for how many seconds this request waits if all slots of its actor are occupied."""
        return 0.0

    def release_slot(self) -> None:
        """Stop counting as one of the actor's concurrent requests: the work is done, the rest is waiting."""
        if self._slot is not None:
            slots_of_actors.release(self._slot)
            self._slot = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            response: Any = super().dispatch(request, *args, **kwargs)
            if isinstance(response, Response):
                response.render()  # here, because rendering is part of the work
            return response
        finally:
            self.release_slot()

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        answered = super().finalize_response(request, response, *args, **kwargs)
        patch_vary_headers(answered, VARY_ON)
        answered.headers.setdefault("Cache-Control", PRIVATE)
        actor: Actor | None = getattr(request, "_actor", None)
        if actor is not None:
            for name, value in rate_headers(actor.ident).items():
                answered[name] = value
        return answered


class JSONView(Guarded):
    """The base of the API's views: JSON in and out, lists in pages."""

    renderer_classes = (Renderer,)
    parser_classes = (JSONParser,)
    content_negotiation_class: Any = FixedFormat
    metadata_class: Any = None
    pagination_class: Any = Pagination
    filter_backends: Any = (DjangoFilterBackend,)
