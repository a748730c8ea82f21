"""What holds for every view, whatever `REST_FRAMEWORK` says in the project that this app is part of."""

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
from marketplace_sync.api.negotiation import OneForm
from marketplace_sync.api.pagination import Pages
from marketplace_sync.api.permissions import IsActor, actor_behind
from marketplace_sync.api.rendering import Renderer
from marketplace_sync.api.throttles import AT_ONCE, PerActor, places_of_actors, rate_headers
from marketplace_sync.governance.actors import Actor

# What no cache keeps, and no other person or key is given.
PRIVATE = "private, no-store"
BY_WHOM = ("Authorization", "Cookie")


class Guarded(APIView):
    """Who may come in, and how a refusal looks. No anonymous access; what is open says so itself.

    Every answer, refusals too, is for one client alone: no proxy may keep it for another.
    """

    # The key first: it names the scheme that a 401 asks for.
    authentication_classes = (BearerAuthentication, PersonAuthentication)
    permission_classes = (IsActor,)
    throttle_classes = (PerActor,)
    versioning_class = None

    _place: str | None = None  # whose place this request has, of those at the same time

    @classmethod
    def as_view(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the view. It opens its own transactions, also with `ATOMIC_REQUESTS`.

        In one around the request the audit row of a refusal would be rolled back.
        """
        return non_atomic_requests(super().as_view(*args, **kwargs))

    def get_exception_handler(self) -> Callable[..., Any]:
        return answer_error

    def check_throttles(self, request: Request) -> None:
        super().check_throttles(request)
        actor = actor_behind(request).ident
        if not places_of_actors.take(actor, self.patience(request)):
            detail = f"At most {AT_ONCE} requests of one actor are served at the same time."
            raise Throttled(1, detail, "too_many_at_once")
        self._place = actor

    def patience(self, request: Request) -> float:
        """Return for how many seconds this request waits for a place when its actor has all of them."""
        return 0.0

    def leave_place(self) -> None:
        """Count no more as one of the requests at the same time: the work is done, what follows is waiting."""
        if self._place is not None:
            places_of_actors.give_back(self._place)
            self._place = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            response: Any = super().dispatch(request, *args, **kwargs)
            if isinstance(response, Response):
                response.render()  # here and not later, for it is part of the work
            return response
        finally:
            self.leave_place()

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        answered = super().finalize_response(request, response, *args, **kwargs)
        patch_vary_headers(answered, BY_WHOM)
        answered.headers.setdefault("Cache-Control", PRIVATE)
        actor: Actor | None = getattr(request, "_actor", None)
        if actor is not None:
            for name, value in rate_headers(actor.ident).items():
                answered[name] = value
        return answered


class JSONView(Guarded):
    """Of the API: JSON in and out, in pages."""

    renderer_classes = (Renderer,)
    parser_classes = (JSONParser,)
    content_negotiation_class: Any = OneForm
    metadata_class: Any = None
    pagination_class: Any = Pages
    filter_backends: Any = (DjangoFilterBackend,)
