"""The mirrored catalogue, read only."""

from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from marketplace_sync.api.filters import ORDERINGS, CategoryFilter, SkillFilter
from marketplace_sync.api.rendering import utc_text
from marketplace_sync.api.serializers import CategorySerializer, ListedSkillSerializer, SkillSerializer
from marketplace_sync.api.snapshot import snapshot
from marketplace_sync.api.views import StrictView
from marketplace_sync.mirror.status import Freshness, freshness
from marketplace_sync.models import Category, Skill, WebSocketState

FEED_SEQ, STATE, AS_OF = "X-Feed-Seq", "X-Mirror-State", "X-Mirror-As-Of"
_FEED_SEQ_HEADER = OpenApiParameter(
    FEED_SEQ, int, OpenApiParameter.HEADER, response=[200],
    description="The feed number of the list. Continue from it with `/api/changes/?after=`.",
)  # fmt: skip
_FRESHNESS_HEADERS = (
    OpenApiParameter(
        STATE, str, OpenApiParameter.HEADER, response=[200, 404], enum=WebSocketState.State.values,
        description="The state of the mirror: `state` of `/api/admin/websocket/status/`.",
    ),
    OpenApiParameter(
        AS_OF, OpenApiTypes.DATETIME, OpenApiParameter.HEADER, response=[200, 404],
        description="The mirror has everything that the marketplace had at this time. Absent if it was never in sync.",
    ),
)  # fmt: skip
# A client may keep the catalogue, but must revalidate it before each use.
REVALIDATED = "private, no-cache"
# A refused client learns nothing about the mirror.
_REFUSED = (401, 403, 429)


class MirroredViewSet(StrictView, ReadOnlyModelViewSet[Any]):
    """Every answer, 404 included, carries its freshness. A list is a snapshot, with the feed number `X-Feed-Seq`."""

    lookup_value_converter = "marketplace_sync_anything"
    _freshness: Freshness | None = None  # of the answer

    @extend_schema(parameters=[_FEED_SEQ_HEADER, *_FRESHNESS_HEADERS])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with snapshot() as fresh:
            self._freshness = fresh
            response = super().list(request, *args, **kwargs)
        response[FEED_SEQ] = str(fresh.feed_seq)
        return response

    @extend_schema(parameters=[*_FRESHNESS_HEADERS])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        # Read before the row, so that the answer never claims more freshness than it has.
        self._freshness = freshness()
        return super().retrieve(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        if response.status_code not in _REFUSED:
            fresh = self._freshness or freshness()
            response[STATE] = fresh.state
            if fresh.as_of is not None:
                response[AS_OF] = utc_text(fresh.as_of)
        if response.status_code == HTTPStatus.OK:
            response["Cache-Control"] = REVALIDATED
        return super().finalize_response(request, response, *args, **kwargs)

    def get_object(self) -> Any:
        # No database stores NUL, so there is no such id.
        if "\0" in self.kwargs[self.lookup_field]:
            raise NotFound
        return super().get_object()


class SkillViewSet(MirroredViewSet):
    """The skills. Their ids may contain any character, slashes included: percent-encode them."""

    queryset = Skill.objects.select_related("category").order_by(*ORDERINGS["name"])
    filterset_class = SkillFilter
    lookup_field = "skill_id"

    def get_queryset(self) -> QuerySet[Any]:
        return super().get_queryset() if self.action == "retrieve" else super().get_queryset().defer("code")

    def get_serializer_class(self) -> Any:
        return SkillSerializer if self.action == "retrieve" else ListedSkillSerializer


class CategoryViewSet(MirroredViewSet):
    """The categories, by name."""

    queryset = Category.objects.order_by("name")
    filterset_class = CategoryFilter
    serializer_class = CategorySerializer
    lookup_field = "name"
