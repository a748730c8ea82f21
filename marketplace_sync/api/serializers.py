"""The serializers of all answers, and of request bodies for the schema."""

from typing import Any, ClassVar

from django.db import models
from drf_spectacular.utils import OpenApiExample, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from marketplace_sync.api import examples
from marketplace_sync.api.waiting import expired
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import NO_DAEMON_RESULT
from marketplace_sync.models import AuditRow, Category, Command, DeadLetter, FeedChange, Skill, SyncRun


def example(value: dict[str, Any]) -> Any:
    """Return a decorator that adds this example to the serializer's schema."""
    return extend_schema_serializer(examples=[OpenApiExample("example", value=value, response_only=True)])


class PlainColumns:
    """Take columns unchanged, because their values are JSON already; the renderer formats times.

    For 1,000 rows DRF's fields took 150 ms, this takes 3. The fields still describe the answer in the schema.
    """

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {name: getattr(instance, name) for name in self.Meta.fields}  # type: ignore[attr-defined]


class TimestampField(serializers.DateTimeField):
    """A time, which the renderer formats."""

    def to_representation(self, value: Any) -> Any:
        return value


class ComputedRows(serializers.ModelSerializer[Any]):
    """DRF's serializer, for rows with computed fields."""

    serializer_field_mapping: ClassVar = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DateTimeField: TimestampField,
    }


class TextList(serializers.ListField):
    """A list of texts."""

    child = serializers.CharField()


@extend_schema_field({"type": "object", "additionalProperties": {}})
class FreeObject(serializers.JSONField):
    """An object with any keys that the marketplace sent."""


_LISTED = (
    "skill_id", "name", "description", "version", "command", "python_packages", "npm_packages", "tags", "metadata",
    "category", "average_rating", "rating_count", "extra", "remote_created_at", "remote_updated_at", "rating_at",
    "synced_at",
)  # fmt: skip


@example(examples.LISTED_SKILL)
class ListedSkillSerializer(PlainColumns, serializers.ModelSerializer[Skill]):
    """A skill as lists show it: without `code`, which can be large."""

    category: Any = serializers.SlugRelatedField(slug_field="name", read_only=True, allow_null=True)
    python_packages = TextList(read_only=True)
    npm_packages = TextList(read_only=True)
    tags = TextList(read_only=True)
    metadata = FreeObject(read_only=True)
    extra = FreeObject(read_only=True)
    rating_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = Skill
        fields: tuple[str, ...] = _LISTED
        read_only_fields = fields

    def to_representation(self, instance: Skill) -> dict[str, Any]:
        return super().to_representation(instance) | {"category": instance.category and instance.category.name}


@example(examples.SKILL)
class SkillSerializer(ListedSkillSerializer):
    """A skill with all fields."""

    class Meta(ListedSkillSerializer.Meta):
        fields = (*_LISTED, "code")
        read_only_fields = fields


@example(examples.CATEGORY)
class CategorySerializer(PlainColumns, serializers.ModelSerializer[Category]):
    """A category. `skill_count` is the marketplace's number, not the number of stored skills."""

    class Meta:
        model = Category
        fields = ("name", "description", "icon_url", "skill_count", "remote_created_at", "remote_updated_at")
        read_only_fields = fields


class NullableObject(FreeObject):
    """An object with any keys, or null."""


@example(examples.COMMAND)
class CommandSerializer(ComputedRows):
    """A command to the daemon, and its answer.

    A command that is pending after its time is `expired`, even if no daemon runs that could store this.
    """

    result = NullableObject(read_only=True, allow_null=True)
    args = FreeObject(read_only=True)

    class Meta:
        model = Command
        fields = (
            "id", "action", "args", "state", "result", "reason", "requested_by", "requested_at", "accepted_at",
            "finished_at",
        )  # fmt: skip
        read_only_fields = fields

    def to_representation(self, instance: Command) -> dict[str, Any]:
        if expired(instance):
            instance.state = Command.State.EXPIRED
            # If the clock was set back since, its time ends in the future.
            instance.finished_at = min(instance.expires_at, database_now())
            instance.result = NO_DAEMON_RESULT
        return super().to_representation(instance)


@example(examples.RUN)
class RunSerializer(PlainColumns, ComputedRows):
    """One full sync. `held_count` removals wait for approval while `state` is `held`; `held_reason` is the reason.

    `degraded`: `refused` listed records could not be read, so the mirror may have outdated values for them.
    """

    degraded = serializers.BooleanField(read_only=True)

    class Meta:
        model = SyncRun
        fields: tuple[str, ...] = (
            "id", "reason", "state", "started_at", "finished_at", "pages_done", "pages_total", "listed", "created",
            "updated", "unchanged", "stale", "refused", "removed", "held_count", "held_reason", "is_clean",
            "unclean_reason", "error", "degraded", "listed_categories", "refused_categories", "by_row",
        )  # fmt: skip
        read_only_fields = fields


@example(examples.RUN_ON_HOLD)
class RunDetailSerializer(RunSerializer):
    """A full sync, with the first 1,000 skills that it would have removed."""

    held_skill_ids = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "held_skill_ids")
        read_only_fields = fields

    def to_representation(self, instance: SyncRun) -> dict[str, Any]:
        return ComputedRows.to_representation(self, instance)

    def get_held_skill_ids(self, run: SyncRun) -> list[str]:
        return list(run.held_removals.order_by("skill_id").values_list("skill_id", flat=True)[:1000])


@example(examples.SYNC_STATUS)
class SyncStatusSerializer(serializers.Serializer[Any]):
    """The status of full syncs."""

    running = RunSerializer(allow_null=True, help_text="The running full sync, with its progress.")
    last = RunSerializer(allow_null=True, help_text="The last full sync that ended, with any result.")
    last_done = RunSerializer(
        allow_null=True, help_text="The last full sync that read the listing: done, degraded, or with removals on hold."
    )
    held = RunSerializer(allow_null=True, help_text="The full sync whose removals are on hold.")
    runs = serializers.DictField(child=serializers.IntegerField(), help_text="The number of full syncs by state.")


_DEAD_LETTER = (
    "id", "source", "code", "field", "reason", "kind", "key", "size", "digest", "count", "state", "first_seen_at",
    "last_seen_at",
)  # fmt: skip


@example(examples.DEAD_LETTER)
class DeadLetterSerializer(PlainColumns, ComputedRows):
    """Input that could not be applied, with the reason. Identical input is one row, counted in `count`."""

    count = serializers.IntegerField(read_only=True)

    class Meta:
        model = DeadLetter
        fields: tuple[str, ...] = _DEAD_LETTER
        read_only_fields = fields


@example(examples.DEAD_LETTER_DETAIL)
class DeadLetterDetailSerializer(DeadLetterSerializer):
    """A dead letter with the first 4 KiB of the input. Bytes that are not UTF-8 are replaced."""

    head = serializers.SerializerMethodField()

    class Meta(DeadLetterSerializer.Meta):
        fields = (*_DEAD_LETTER, "head")
        read_only_fields = fields

    def to_representation(self, instance: DeadLetter) -> dict[str, Any]:
        return ComputedRows.to_representation(self, instance)

    def get_head(self, dead_letter: DeadLetter) -> str:
        return bytes(dead_letter.head).decode("utf-8", "replace")


@example(examples.AUDIT_ROW)
class AuditRowSerializer(PlainColumns, serializers.ModelSerializer[AuditRow]):
    """One decision about a management action."""

    details = FreeObject(read_only=True)

    class Meta:
        model = AuditRow
        fields = (
            "id", "at", "actor", "actor_kind", "verb", "target", "reason", "allowed", "outcome", "required", "actual",
            "origin", "details", "command_id",
        )  # fmt: skip
        read_only_fields = fields


@example(examples.CHANGE)
class ChangeSerializer(PlainColumns, serializers.ModelSerializer[FeedChange]):
    """One change. `data` is the whole record for a creation, and the changed fields for an update."""

    data: Any = FreeObject(read_only=True)

    class Meta:
        model = FeedChange
        fields = ("seq", "kind", "key", "at", "source", "data")
        read_only_fields = fields


@example({"results": [examples.CHANGE], "next_after": examples.CHANGE["seq"]})
class ChangesSerializer(serializers.Serializer[Any]):
    """A page of the change feed. Use `next_after` as `after` of the next request."""

    results = ChangeSerializer(many=True)
    next_after = serializers.IntegerField()


class TotalsSerializer(serializers.Serializer[Any]):
    """Numbers of stream messages since the mirror was created."""

    received = serializers.IntegerField()
    applied = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    stale = serializers.IntegerField()
    rejected = serializers.IntegerField()
    shed = serializers.IntegerField()


class DaemonSerializer(serializers.Serializer[Any]):
    """The daemon that owns the lease; `standby` is the number of daemons that wait for it."""

    alive = serializers.BooleanField()
    name = serializers.CharField(allow_blank=True)
    heartbeat_at = TimestampField(allow_null=True)
    standby = serializers.IntegerField()


class PlainNumber(serializers.FloatField):
    """A number, written as 100 instead of 100.0, because some clients distinguish the two."""

    def to_representation(self, value: float) -> Any:
        return int(value) if float(value).is_integer() else float(value)


@example(examples.STATUS)
class StatusSerializer(serializers.Serializer[Any]):
    """The state of the live stream, correct after a crash too."""

    state = serializers.ChoiceField(
        choices=("not_running", "connecting", "catching_up", "live", "reconnecting", "polling", "suspended", "disabled")
    )
    connected = serializers.BooleanField()
    enabled = serializers.BooleanField()
    ws_url = serializers.CharField(allow_blank=True, help_text="The URL of the stream, without the token.")
    last_connected_at = TimestampField(allow_null=True)
    last_message_at = TimestampField(allow_null=True)
    disconnect_reason = serializers.CharField(allow_blank=True)
    reconnect_attempts = serializers.IntegerField()
    consecutive_failures = serializers.IntegerField()
    fallback_to_polling = serializers.BooleanField()
    fallback_started_at = TimestampField(allow_null=True)
    next_ws_attempt_at = TimestampField(allow_null=True)
    rate_limit_messages_per_sec = PlainNumber(help_text="0: no limit.")
    totals = TotalsSerializer()
    daemon = DaemonSerializer()


@extend_schema_serializer(
    examples=[OpenApiExample("with a reason", value={"reason": "Moving the proxy."}, request_only=True)]
)
class ReasonSerializer(serializers.Serializer[Any]):
    """The optional body of all commands."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=1000)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "276 removals seen", value={"held_count": 276, "reason": "The vendor withdrew them."}, request_only=True
        )
    ]
)
class ApprovalSerializer(serializers.Serializer[Any]):
    """The number that the approver has seen, and the reason for the approval. Both are required."""

    held_count = serializers.IntegerField(
        min_value=0, help_text="409 `held_changed` if the run has another number of removals on hold."
    )
    reason = serializers.CharField(max_length=1000)
