"""The mirrored catalogue, to read."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from marketplace_sync.api.filters import ORDERINGS, CategoryFilter, SkillFilter
from marketplace_sync.api.serializers import CategorySerializer, ListedSkillSerializer, SkillSerializer
from marketplace_sync.api.snapshot import snapshot
from marketplace_sync.api.views import KnownParameters
from marketplace_sync.models import Category, Skill

FEED_SEQ = "X-Feed-Seq"
_FEED_SEQ_HEADER = OpenApiParameter(
    FEED_SEQ, int, OpenApiParameter.HEADER, response=[200],
    description="The feed number that the list is as of; follow `/api/changes/?after=` from it.",
)  # fmt: skip


class MirroredViewSet(KnownParameters, ReadOnlyModelViewSet[Any]):
    """Lists are of one moment, whose feed number `X-Feed-Seq` tells."""

    lookup_value_converter = "anything"

    @extend_schema(parameters=[_FEED_SEQ_HEADER])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with snapshot() as seq:
            response = super().list(request, *args, **kwargs)
        response[FEED_SEQ] = str(seq)
        return response

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
