"""Management: status, commands, full syncs, dead letters, audit log."""

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
from marketplace_sync.api.views import StrictView, read_body
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
    description="Seconds to wait for the daemon's answer, at most 30; larger values count as 30.",
)  # fmt: skip
_POSTS: dict[str, Any] = {
    "request": ReasonSerializer,
    "parameters": [_WAIT],
    "responses": {
        200: OpenApiResponse(CommandSerializer, "The command has ended: done, failed or expired."),
        202: OpenApiResponse(
            CommandSerializer,
            "The daemon has not answered yet. Poll `/api/admin/commands/{id}/`.",
            examples=[OpenApiExample("pending", value=examples.PENDING_COMMAND)],
        ),
    },
}


# A POST takes about 30 ms, unless the database is locked or slow.
_SLOT_SECONDS = 2


class ManagementView(StrictView):
    """The base of all views under `/api/admin/`. Reading needs AUTONOMOUS; for a POST, its action decides."""

    permission_classes = (MayManage,)

    def order(
        self, request: Request, action_class: type[CommandAction], *target: int, fields: tuple[str, ...] = ()
    ) -> Response:
        """Perform the action and wait for the daemon's answer if requested. `fields` are further fields of the body."""
        wait = read_wait(request)
        command = action_class(*target, **self.by(request, *fields)).perform()
        # A waiting request sleeps without a database connection. It leaves its slot, so that its actor can read
        # meanwhile; waiting requests have a limit of their own (`waiting.MAX_WAITERS`).
        self.release_slot()
        wait_for(command, wait)
        return Response(CommandSerializer(command).data, status=200 if ended(command) else 202)

    def slot_timeout(self, request: Request) -> float:
        """Return how long to wait for a slot: a request that would wait for the daemon waits for a slot first."""
        return 0.0 if request.method in SAFE_METHODS else float(min(read_wait(request), _SLOT_SECONDS))

    def by(self, request: Request, *fields: str) -> dict[str, Any]:
        """Return the keyword arguments of an action: actor, origin, reason, and these fields of the body."""
        return {"actor": actor_behind(request), "origin": origin_of(request), **read_body(request, *fields)}


def read_wait(request: Request) -> int:
    """Return `?wait=N` in seconds, at most `MAX_WAIT_SECONDS`; 0 without it."""
    text = request.query_params.get("wait", "0")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValidationError({"wait": [f"Must be a whole number of seconds from 0 to {MAX_WAIT_SECONDS}."]})
    return min(int(text), MAX_WAIT_SECONDS)


class WebSocketViewSet(ManagementView, ViewSet):
    """The live stream."""

    parameters: ClassVar = {"reconnect": ("wait",), "disable": ("wait",), "enable": ("wait",)}

    @extend_schema(responses=StatusSerializer)
    @action(detail=False)
    def status(self, request: Request) -> Response:
        """Return the state of the stream; correct after a crash too."""
        return Response(StatusSerializer(connection_status(settings)).data)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def reconnect(self, request: Request) -> Response:
        """Open a new stream immediately, with the counters at 0."""
        return self.order(request, Reconnect)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def disable(self, request: Request) -> Response:
        """Close the stream and keep it closed, also after restarts; polling continues."""
        return self.order(request, Disable)

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def enable(self, request: Request) -> Response:
        """Open the stream again after `disable`."""
        return self.order(request, Enable)


class SyncViewSet(ManagementView, ViewSet):
    """Full syncs: their status, and the command to start one."""

    parameters: ClassVar = {"trigger": ("wait",)}

    @extend_schema(**_POSTS)
    @action(detail=False, methods=["post"])
    def trigger(self, request: Request) -> Response:
        """Start a full sync. The command is done when a full sync that began after it has ended."""
        return self.order(request, SyncNow)

    @extend_schema(responses=SyncStatusSerializer)
    @action(detail=False)
    def status(self, request: Request) -> Response:
        """Return the running full sync, the last ones, and the one whose removals are on hold."""
        state = SyncRun.State
        runs = SyncRun.objects.order_by("-id")
        by_state = runs.order_by().values_list("state").annotate(Count("pk"))
        successful = (state.DONE, state.DEGRADED, state.HELD, state.APPROVED, state.DISMISSED, state.SUPERSEDED)
        found = {
            "running": runs.filter(state=state.RUNNING).first(),
            "last": runs.exclude(state=state.RUNNING).first(),
            "last_done": runs.filter(state__in=successful).first(),
            "held": runs.filter(state=state.HELD).first(),
            "runs": dict(by_state),
        }
        return Response(SyncStatusSerializer(found).data)


class RunViewSet(ManagementView, ListModelMixin, RetrieveModelMixin, GenericViewSet[SyncRun]):
    """Full syncs, the newest first."""

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
        """Delete the skills that this run lists as missing and that still are missing.

        The body states the number that you have seen. For people only, unless `APPROVALS_BY_AGENTS` is true. A
        superseded run can be approved while a newer run has some of the same removals on hold.
        """
        return self.order(request, ApproveRemoval, pk, fields=("held_count",))

    @extend_schema(**_POSTS)
    @action(detail=True, methods=["post"])
    def dismiss(self, request: Request, pk: int) -> Response:
        """Keep the skills that this run lists as missing, until they are listed again or their removal is approved."""
        return self.order(request, DismissRemoval, pk)


class CommandViewSet(ManagementView, RetrieveModelMixin, GenericViewSet[Command]):
    """Commands to the daemon, and its answers."""

    queryset = Command.objects.all()
    serializer_class = CommandSerializer
    lookup_value_converter = "int"


class DeadLetterViewSet(ManagementView, ListModelMixin, RetrieveModelMixin, GenericViewSet[DeadLetter]):
    """Input that could not be applied, with the reason; the last received first."""

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
        """Apply the refused input again."""
        return self.order(request, ReplayDeadLetter, pk)

    @extend_schema(
        request=ReasonSerializer,
        parameters=[_WAIT],
        responses=OpenApiResponse(
            DeadLetterDetailSerializer,
            "The dead letter is discarded. That needs no daemon, so there is no command to wait for.",
            examples=[OpenApiExample("discarded", value=examples.DISCARDED)],
        ),
    )
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, pk: int) -> Response:
        """Discard the dead letter for good. If the same input comes again, it is counted and stays discarded."""
        read_wait(request)
        dead_letter = DiscardDeadLetter(pk, **self.by(request)).perform()
        return Response(DeadLetterDetailSerializer(dead_letter).data)


class AuditViewSet(ManagementView, ListModelMixin, GenericViewSet[AuditRow]):
    """Every management decision, allowed or refused; the newest first."""

    queryset = AuditRow.objects.order_by("-id")
    serializer_class = AuditRowSerializer
    filterset_class = AuditFilter
