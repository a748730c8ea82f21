"""Watching and steering: status, commands, passes, dead letters."""

import re
from typing import Any, ClassVar

from django.conf import settings
from django.db.models import Count
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet, ViewSet

from marketplace_sync.api import examples
from marketplace_sync.api.authentication import origin_of
from marketplace_sync.api.filters import AuditFilter, DeadLetterFilter, RunFilter
from marketplace_sync.api.permissions import MayManage, actor_behind
from marketplace_sync.api.serializers import (
    ApprovalSerializer,
    AuditRowSerializer,
    CommandSerializer,
    DeadLetterDetailSerializer,
    DeadLetterSerializer,
    ReasonSerializer,
    RunDetailSerializer,
    RunSerializer,
    StatusSerializer,
    SyncStatusSerializer,
)
from marketplace_sync.api.status import connection_status
from marketplace_sync.api.views import KnownParameters, read_body
from marketplace_sync.api.waiting import MAX_WAIT_SECONDS, ended, wait_for
from marketplace_sync.governance.actions import (
    ApproveRemoval,
    CommandAction,
    Disable,
    DiscardDeadLetter,
    DismissRemoval,
    Enable,
    Reconnect,
    ReplayDeadLetter,
    SyncNow,
)
from marketplace_sync.models import AuditRow, Command, DeadLetter, SyncRun

_WAIT = OpenApiParameter(
    "wait", {"type": "integer", "minimum": 0}, OpenApiParameter.QUERY,
    description="Seconds to wait for the daemon's answer; over 30 is served as 30.",
)  # fmt: skip
_POSTS: dict[str, Any] = {
    "request": ReasonSerializer,
    "parameters": [_WAIT],
    "responses": {
        200: OpenApiResponse(CommandSerializer, "It has ended: done, failed or expired."),
        202: OpenApiResponse(
            CommandSerializer,
            "Asked for; look again at `/api/admin/commands/{id}/`.",
            examples=[OpenApiExample("pending", value=examples.PENDING_COMMAND)],
        ),
    },
}


# The work of a POST takes some 30 ms, unless the database is locked or slow.
_PLACE_SECONDS = 2


class Managed(KnownParameters):
    """Everything under `/api/admin/`: reading needs AUTONOMOUS, and what is posted is decided by its action."""

    permission_classes = (MayManage,)

    def order(
        self, request: Request, asked: type[CommandAction], *target: int, fields: tuple[str, ...] = ()
    ) -> Response:
        """Perform the action, and wait for the daemon's answer if that is wanted. `fields`: more of the body's."""
        wait = read_wait(request)
        command = asked(*target, **self.by(request, *fields)).perform()
        # To wait is to sleep without a database connection. Its actor may read meanwhile, and those who wait have a
        # limit of their own (`waiting.MAX_WAITERS`).
        self.leave_place()
        wait_for(command, wait)
        return Response(CommandSerializer(command).data, status=200 if ended(command) else 202)

    def patience(self, request: Request) -> float:
        """One that would wait for the daemon waits for a place first, rather than that its actor has to try again."""
        return 0.0 if request.method in SAFE_METHODS else float(min(read_wait(request), _PLACE_SECONDS))

    def by(self, request: Request, *fields: str) -> dict[str, Any]:
        """Who, why and from where, as actions want it, and these fields of the body."""
        return {"actor": actor_behind(request), "origin": origin_of(request), **read_body(request, *fields)}


def read_wait(request: Request) -> int:
    """`?wait=N` in seconds, 0 without it; over the most it is the most."""
    text = request.query_params.get("wait", "0")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValidationError({"wait": [f"Seconds, from 0 to {MAX_WAIT_SECONDS}."]})
    return min(int(text), MAX_WAIT_SECONDS)


class WebSocketViewSet(Managed, ViewSet):
    """The live stream."""

    parameters: ClassVar = {"reconnect": ("wait",), "disable": ("wait",), "enable": ("wait",)}

    @extend_schema(responses=StatusSerializer)
    @action(detail=False)
    def status(self, request: Request) -> Response:
        """How it stands: the truth, after a crash too."""
        return Response(StatusSerializer(connection_status(settings)).data)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def reconnect(self, request: Request) -> Response:
        """Open a new stream at once, with the counters at 0."""
        return self.order(request, Reconnect)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def disable(self, request: Request) -> Response:
        """Close the stream, over restarts too; polling goes on."""
        return self.order(request, Disable)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def enable(self, request: Request) -> Response:
        """Want the stream again."""
        return self.order(request, Enable)


class SyncViewSet(Managed, ViewSet):
    """The passes over the listing, as a whole."""

    parameters: ClassVar = {"trigger": ("wait",)}

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def trigger(self, request: Request) -> Response:
        """A full pass, begun after this; done when it has ended."""
        return self.order(request, SyncNow)

    @extend_schema(responses=SyncStatusSerializer)
    @action(detail=False)
    def status(self, request: Request) -> Response:
        """The last passes, the one under way, and the one whose removals wait for approval."""
        state = SyncRun.State
        runs = SyncRun.objects.order_by("-id")
        by_state = runs.order_by().values_list("state").annotate(Count("pk"))
        ended_well = (state.DONE, state.DEGRADED, state.HELD, state.APPROVED, state.DISMISSED, state.SUPERSEDED)
        told = {
            "running": runs.filter(state=state.RUNNING).first(),
            "last": runs.exclude(state=state.RUNNING).first(),
            "last_done": runs.filter(state__in=ended_well).first(),
            "held": runs.filter(state=state.HELD).first(),
            "runs": dict(by_state),
        }
        return Response(SyncStatusSerializer(told).data)


class RunViewSet(Managed, ListModelMixin, RetrieveModelMixin, GenericViewSet[SyncRun]):
    """Full passes, the newest first."""

    queryset = SyncRun.objects.order_by("-id")
    serializer_class = RunSerializer
    filterset_class = RunFilter
    lookup_value_converter = "int"
    parameters: ClassVar = {"approve": ("wait",), "dismiss": ("wait",)}

    def get_serializer_class(self) -> Any:
        return RunDetailSerializer if self.action == "retrieve" else RunSerializer

    @extend_schema(**_POSTS | {"request": ApprovalSerializer})
    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: int) -> Response:
        """Delete the skills that this run lists as missing and that are missing still.

        The body says what you have seen. For persons, unless `APPROVALS_BY_AGENTS` is true. A superseded run can be
        approved as long as a newer one holds some of the same removals.
        """
        return self.order(request, ApproveRemoval, pk, fields=("held_count",))

    @extend_schema(**_POSTS)
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, pk: int) -> Response:
        """Keep the skills that this run lists as missing, until they are listed again or their removal is approved."""
        return self.order(request, DismissRemoval, pk)


class CommandViewSet(Managed, RetrieveModelMixin, GenericViewSet[Command]):
    """What was asked of the daemon, and what it answered."""

    queryset = Command.objects.all()
    serializer_class = CommandSerializer
    lookup_value_converter = "int"


class DeadLetterViewSet(Managed, ListModelMixin, RetrieveModelMixin, GenericViewSet[DeadLetter]):
    """What could not be applied, and why; the last seen first."""

    queryset = DeadLetter.objects.order_by("-last_seen_at", "-id")
    filterset_class = DeadLetterFilter
    lookup_value_converter = "int"
    parameters: ClassVar = {"replay": ("wait",), "discard": ("wait",)}

    def get_queryset(self) -> Any:
        return super().get_queryset() if self.action == "retrieve" else super().get_queryset().defer("head")

    def get_serializer_class(self) -> Any:
        return DeadLetterDetailSerializer if self.action == "retrieve" else DeadLetterSerializer

    @extend_schema(**_POSTS)
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: int) -> Response:
        """Apply once more what was refused."""
        return self.order(request, ReplayDeadLetter, pk)

    @extend_schema(
        request=ReasonSerializer,
        parameters=[_WAIT],
        responses=OpenApiResponse(
            DeadLetterDetailSerializer,
            "Put aside. It needs no daemon, so there is no command and nothing to wait for.",
            examples=[OpenApiExample("discarded", value=examples.DISCARDED)],
        ),
    )
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, pk: int) -> Response:
        """Put it aside for good: when the same comes again it is counted, and stays put aside."""
        read_wait(request)
        letter = DiscardDeadLetter(pk, **self.by(request)).perform()
        return Response(DeadLetterDetailSerializer(letter).data)


class AuditViewSet(Managed, ListModelMixin, GenericViewSet[AuditRow]):
    """Every management decision, allowed or refused; the newest first."""

    queryset = AuditRow.objects.order_by("-id")
    serializer_class = AuditRowSerializer
    filterset_class = AuditFilter
