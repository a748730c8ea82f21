"""The mirrored catalogue, to read."""

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
from marketplace_sync.api.views import KnownParameters
from marketplace_sync.mirror.status import Freshness, freshness
from marketplace_sync.models import Category, Skill, WebSocketState

FEED_SEQ, STATE, AS_OF = "X-Feed-Seq", "X-Mirror-State", "X-Mirror-As-Of"
_FEED_SEQ_HEADER = OpenApiParameter(
    FEED_SEQ, int, OpenApiParameter.HEADER, response=[200],
    description="The feed number that the list is as of; follow `/api/changes/?after=` from it.",
)  # fmt: skip
_FRESHNESS_HEADERS = (
    OpenApiParameter(
        STATE, str, OpenApiParameter.HEADER, response=[200, 404], enum=WebSocketState.State.values,
        description="How the mirror stands: the `state` of `/api/admin/websocket/status/`.",
    ),
    OpenApiParameter(
        AS_OF, OpenApiTypes.DATETIME, OpenApiParameter.HEADER, response=[200, 404],
        description="What the marketplace had by then, the mirror has. Absent: it never was known to be level.",
    ),
)  # fmt: skip
# Whoever asks may keep the catalogue, and asks each time whether it is still so.
REVALIDATED = "private, no-cache"
# Whoever is turned away at the door learns nothing.
_NOT_LET_IN = (401, 403, 429)


class MirroredViewSet(KnownParameters, ReadOnlyModelViewSet[Any]):
    """Every answer says how fresh it is, also that something is not there. A list is of one moment: `X-Feed-Seq`."""

    lookup_value_converter = "marketplace_sync_anything"
    _moment: Freshness | None = None  # as of which the answer is

    @extend_schema(parameters=[_FEED_SEQ_HEADER, *_FRESHNESS_HEADERS])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with snapshot() as moment:
            self._moment = moment
            response = super().list(request, *args, **kwargs)
        response[FEED_SEQ] = str(moment.feed_seq)
        return response

    @extend_schema(parameters=[*_FRESHNESS_HEADERS])
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        # Before the row is read, so that what is told of it is never too much.
        self._moment = freshness()
        return super().retrieve(request, *args, **kwargs)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        if response.status_code not in _NOT_LET_IN:
            moment = self._moment or freshness()
            response[STATE] = moment.state
            if moment.as_of is not None:
                response[AS_OF] = utc_text(moment.as_of)
        if response.status_code == HTTPStatus.OK:
            response["Cache-Control"] = REVALIDATED
        return super().finalize_response(request, response, *args, **kwargs)

    def get_object(self) -> Any:
        # An id that no database takes is an id that is not there.
        if "\0" in self.kwargs[self.lookup_field]:
            raise NotFound
        return super().get_object()


class SkillViewSet(MirroredViewSet):
    """The skills. Their ids may hold any character, also slashes: percent-encode them."""

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
