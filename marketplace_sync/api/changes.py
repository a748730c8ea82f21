"""The change feed in pages: `GET /api/changes/?after=SEQ&limit=N`."""

import re

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from marketplace_sync.api.errors import Gone
from marketplace_sync.api.serializers import ChangeSerializer, ChangesSerializer
from marketplace_sync.api.snapshot import snapshot
from marketplace_sync.api.views import StrictView
from marketplace_sync.models import FeedChange

LIMIT = 100
MAX_LIMIT = 1000


class ChangesView(StrictView):
    """The changes, in the order of commits."""

    @extend_schema(
        operation_id="changes_list",
        responses=ChangesSerializer,
        parameters=[
            OpenApiParameter("after", {"type": "integer", "minimum": 0, "default": 0}, OpenApiParameter.QUERY,
                             description="The last number received; 0: from the beginning."),
            OpenApiParameter("limit", {"type": "integer", "minimum": 1, "default": LIMIT}, OpenApiParameter.QUERY,
                             description=f"At most {MAX_LIMIT}; larger values count as {MAX_LIMIT}."),
        ],
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Return the changes after a number. 410 if it is too old or ahead of the newest: list the catalogue again."""
        after = _number(request, "after", 0)
        limit = min(_number(request, "limit", LIMIT, least=1), MAX_LIMIT)
        with snapshot() as fresh:
            newest = fresh.feed_seq
            if after > newest:
                raise Gone(f"The newest change is {newest}; list the catalogue again.")
            found = list(FeedChange.objects.filter(seq__gt=after).order_by("seq")[:limit])
            # Numbers have no gaps: if the first one is not the next, those between were pruned.
            if after < newest and (not found or found[0].seq != after + 1):
                first = FeedChange.objects.order_by("seq").values_list("seq", flat=True).first()
                raise Gone(f"The feed begins at {first or newest + 1}; list the catalogue again.")
        results = ChangeSerializer(found, many=True).data
        return Response({"results": results, "next_after": found[-1].seq if found else after})

    def known_parameters(self) -> tuple[str, ...]:
        return ("after", "limit")


def _number(request: Request, name: str, default: int, least: int = 0) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise ValidationError({name: [f"Must be a whole number, {least} or larger."]})
    return int(text)
