"""How rows look from outside. Read only, all of them."""

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
    """The serializer's answer, as an example for the schema."""
    return extend_schema_serializer(examples=[OpenApiExample("example", value=value, response_only=True)])


class AsTheyAre:
    """Columns whose values are JSON as they stand, times aside, which the renderer writes.

    DRF's field by field took 150 ms for 1,000 rows, this takes 3. The fields still describe the answer.
    """

    def to_representation(self, instance: Any) -> dict[str, Any]:
        return {name: getattr(instance, name) for name in self.Meta.fields}  # type: ignore[attr-defined]


class TimestampField(serializers.DateTimeField):
    """A time, which the renderer writes."""

    def to_representation(self, value: Any) -> Any:
        return value


class Rows(serializers.ModelSerializer[Any]):
    """DRF's, for rows that it has to compute something for."""

    serializer_field_mapping: ClassVar = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DateTimeField: TimestampField,
    }


class Words(serializers.ListField):
    """A list of texts."""

    child = serializers.CharField()


@extend_schema_field({"type": "object", "additionalProperties": {}})
class FreeObject(serializers.JSONField):
    """An object of whatever the marketplace told."""


_LISTED = (
    "skill_id", "name", "description", "version", "command", "python_packages", "npm_packages", "tags", "metadata",
    "category", "average_rating", "rating_count", "extra", "remote_created_at", "remote_updated_at", "rating_at",
    "synced_at",
)  # fmt: skip


@example(examples.LISTED_SKILL)
class ListedSkillSerializer(AsTheyAre, serializers.ModelSerializer[Skill]):
    """A skill as lists show it: without `code`, which can be large."""

    category: Any = serializers.SlugRelatedField(slug_field="name", read_only=True, allow_null=True)
    python_packages = Words(read_only=True)
    npm_packages = Words(read_only=True)
    tags = Words(read_only=True)
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
    """A skill, whole."""

    class Meta(ListedSkillSerializer.Meta):
        fields = (*_LISTED, "code")
        read_only_fields = fields


@example(examples.CATEGORY)
class CategorySerializer(AsTheyAre, serializers.ModelSerializer[Category]):
    """`skill_count` is what the marketplace says, not what the mirror holds."""

    class Meta:
        model = Category
        fields = ("name", "description", "icon_url", "skill_count", "remote_created_at", "remote_updated_at")
        read_only_fields = fields


class NullableObject(FreeObject):
    """The same, or null."""


@example(examples.COMMAND)
class CommandSerializer(Rows):
    """What was asked of the daemon, and what it answered.

    Pending past its time is `expired`, also when no daemon runs that could write so.
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
            # The end of its time is in the future where the clock was put back since.
            instance.finished_at = min(instance.expires_at, database_now())
            instance.result = NO_DAEMON_RESULT
        return super().to_representation(instance)


@example(examples.RUN)
class RunSerializer(AsTheyAre, Rows):
    """One full sync. `held_count` removals wait for approval while `state` is `held`; `held_reason` says why.

    `degraded`: `refused` listed records could not be read, so the mirror does not have what they say.
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


@example(examples.HELD_RUN)
class RunDetailSerializer(RunSerializer):
    """The same, with the first thousand of the skills that it would have removed."""

    held_skill_ids = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "held_skill_ids")
        read_only_fields = fields

    def to_representation(self, instance: SyncRun) -> dict[str, Any]:
        return Rows.to_representation(self, instance)

    def get_held_skill_ids(self, run: SyncRun) -> list[str]:
        return list(run.held_removals.order_by("skill_id").values_list("skill_id", flat=True)[:1000])


@example(examples.SYNC_STATUS)
class SyncStatusSerializer(serializers.Serializer[Any]):
    """How the passes stand."""

    running = RunSerializer(allow_null=True, help_text="The pass under way, with its progress.")
    last = RunSerializer(allow_null=True, help_text="The last one that ended, however.")
    last_done = RunSerializer(allow_null=True, help_text="The last one that ended well; a held or degraded one did.")
    held = RunSerializer(allow_null=True, help_text="The one whose removals wait for approval.")
    runs = serializers.DictField(child=serializers.IntegerField(), help_text="How many there are of each state.")


_LETTER = (
    "id", "source", "code", "field", "reason", "kind", "key", "size", "digest", "count", "state", "first_seen_at",
    "last_seen_at",
)  # fmt: skip


@example(examples.DEAD_LETTER)
class DeadLetterSerializer(AsTheyAre, Rows):
    """What could not be applied, and why. Identical ones are one row, counted in `count`."""

    count = serializers.IntegerField(read_only=True)

    class Meta:
        model = DeadLetter
        fields: tuple[str, ...] = _LETTER
        read_only_fields = fields


@example(examples.DEAD_LETTER_DETAIL)
class DeadLetterDetailSerializer(DeadLetterSerializer):
    """The same, with the first 4 KiB of what came; bytes that are no UTF-8 are replaced."""

    head = serializers.SerializerMethodField()

    class Meta(DeadLetterSerializer.Meta):
        fields = (*_LETTER, "head")
        read_only_fields = fields

    def to_representation(self, instance: DeadLetter) -> dict[str, Any]:
        return Rows.to_representation(self, instance)

    def get_head(self, letter: DeadLetter) -> str:
        return bytes(letter.head).decode("utf-8", "replace")


@example(examples.AUDIT_ROW)
class AuditRowSerializer(AsTheyAre, serializers.ModelSerializer[AuditRow]):
    """One decision on a management action."""

    details = FreeObject(read_only=True)

    class Meta:
        model = AuditRow
        fields = (
            "id", "at", "actor", "actor_kind", "verb", "target", "reason", "allowed", "outcome", "required", "actual",
            "origin", "details", "command_id",
        )  # fmt: skip
        read_only_fields = fields


@example(examples.CHANGE)
class ChangeSerializer(AsTheyAre, serializers.ModelSerializer[FeedChange]):
    """One change. `data`: the whole record when created, the changed fields when updated."""

    data: Any = FreeObject(read_only=True)

    class Meta:
        model = FeedChange
        fields = ("seq", "kind", "key", "at", "source", "data")
        read_only_fields = fields


@example({"results": [examples.CHANGE], "next_after": examples.CHANGE["seq"]})
class ChangesSerializer(serializers.Serializer[Any]):
    """A piece of the change feed; `next_after` is the `after` of the next request."""

    results = ChangeSerializer(many=True)
    next_after = serializers.IntegerField()


class TotalsSerializer(serializers.Serializer[Any]):
    """Stream messages since the mirror was made."""

    received = serializers.IntegerField()
    applied = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    stale = serializers.IntegerField()
    rejected = serializers.IntegerField()
    shed = serializers.IntegerField()


class DaemonSerializer(serializers.Serializer[Any]):
    """The daemon that holds the lease; `standby` others wait for it."""

    alive = serializers.BooleanField()
    name = serializers.CharField(allow_blank=True)
    heartbeat_at = TimestampField(allow_null=True)
    standby = serializers.IntegerField()


class PlainNumber(serializers.FloatField):
    """A number, told as 100 rather than as 100.0: some readers tell the two apart."""

    def to_representation(self, value: float) -> Any:
        return int(value) if float(value).is_integer() else float(value)


@example(examples.STATUS)
class StatusSerializer(serializers.Serializer[Any]):
    """How the live stream stands, after a crash too."""

    state = serializers.ChoiceField(
        choices=("not_running", "connecting", "catching_up", "live", "reconnecting", "polling", "suspended", "disabled")
    )
    connected = serializers.BooleanField()
    enabled = serializers.BooleanField()
    ws_url = serializers.CharField(allow_blank=True, help_text="Without the token.")
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
    """The optional body of everything that is asked for."""

    reason = serializers.CharField(required=False, allow_blank=True, max_length=1000)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "276 removals seen", value={"held_count": 276, "reason": "The vendor withdrew them."}, request_only=True
        )
    ]
)
class ApprovalSerializer(serializers.Serializer[Any]):
    """What the approver has seen, and why it may be done. Both are required."""

    held_count = serializers.IntegerField(
        min_value=0, help_text="409 `held_changed` if the run does not hold that many."
    )
    reason = serializers.CharField(max_length=1000)
