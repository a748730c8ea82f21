"""Filters and orderings of lists. An invalid value is answered with 400 and its field."""

import math
from datetime import UTC
from typing import Any

import django_filters as filters  # type: ignore[import-untyped]
from django.core.validators import ProhibitNullCharactersValidator
from django.db.models import F, QuerySet
from django.forms import ValidationError
from django.utils import timezone
from django_filters.fields import IsoDateTimeField  # type: ignore[import-untyped]

from marketplace_sync.models import AuditRow, Category, DeadLetter, Skill, SyncRun
from marketplace_sync.models.search import MAX_CHARS, MAX_WORDS, SkillQuerySet, problem_of

# Skills without a rating or a date come last when the best or newest come first. Keys break ties, so pages are stable.
# Each ordering is an index of migration 0003 or 0009, read forwards or backwards.
ORDERINGS: dict[str, tuple[Any, ...]] = {
    "name": ("name", "skill_id"),
    "-name": ("-name", "-skill_id"),
    "average_rating": (F("average_rating").asc(nulls_first=True), "-pk"),
    "-average_rating": (F("average_rating").desc(nulls_last=True), "pk"),
    "rating_count": ("rating_count", "-pk"),
    "-rating_count": ("-rating_count", "pk"),
    "remote_updated_at": (F("remote_updated_at").asc(nulls_first=True), "-pk"),
    "-remote_updated_at": (F("remote_updated_at").desc(nulls_last=True), "pk"),
}


def finite(number: float) -> None:
    if not math.isfinite(number):
        raise ValidationError("Enter a number.")


def searchable(text: str) -> None:
    if problem := problem_of(text):
        raise ValidationError(problem)


class Text(filters.CharFilter):  # type: ignore[misc]
    """A text without NUL, which no database accepts. White space is kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            strip=False, max_length=options.pop("max_length", 255),
            validators=[ProhibitNullCharactersValidator(), *options.pop("validators", ())], **options,
        )  # fmt: skip


class UtcField(IsoDateTimeField):  # type: ignore[misc]
    """A time, converted to UTC; without an offset it is UTC. PostgreSQL refuses offsets of 16 hours and more."""

    def to_python(self, value: Any) -> Any:
        with timezone.override(UTC):  # not the project's time zone
            return super().to_python(value)

    def clean(self, value: Any) -> Any:
        time = super().clean(value)
        try:
            return time and time.astimezone(UTC)
        except OverflowError:
            raise ValidationError("Enter a time from the year 1 to the year 9999, UTC.") from None


class TimestampFilterField(filters.IsoDateTimeFilter):  # type: ignore[misc]
    field_class = UtcField


class SkillFilter(filters.FilterSet):  # type: ignore[misc]
    """`GET /api/skills/`."""

    search = Text(method="matching", max_length=MAX_CHARS, validators=[searchable], label=(
        f"At most {MAX_WORDS} words of at least two letters or digits. Each must be the start of a word in the skill's "
        "name, description or tags, in any order and case."
    ))  # fmt: skip
    category = Text(field_name="category__name", label="The category's exact name.")
    tag = Text(method="tagged", max_length=1000, label="One of the skill's tags, exactly.")
    min_rating = filters.NumberFilter(
        method="at_least",
        min_value=0,
        max_value=5,
        validators=[finite],
        label="Minimum average rating, 0 to 5.",
    )
    ordering = filters.ChoiceFilter(
        choices=[(name, name) for name in ORDERINGS], method="ordered", empty_label=None, label="Default: name."
    )

    class Meta:
        model = Skill
        fields = ()

    def matching(self, skills: SkillQuerySet, name: str, value: str) -> SkillQuerySet:
        return skills.matching(value)

    def tagged(self, skills: SkillQuerySet, name: str, value: str) -> SkillQuerySet:
        return skills.tagged(value)

    def at_least(self, skills: SkillQuerySet, name: str, value: Any) -> SkillQuerySet:
        return skills.filter(average_rating__gte=float(value))

    def ordered(self, skills: SkillQuerySet, name: str, value: str) -> SkillQuerySet:
        return skills.order_by(*ORDERINGS[value])


class CategoryFilter(filters.FilterSet):  # type: ignore[misc]
    """`GET /api/categories/`: all of them, by name."""

    class Meta:
        model = Category
        fields = ()


class RunFilter(filters.FilterSet):  # type: ignore[misc]
    """`GET /api/admin/sync/runs/`."""

    state = filters.ChoiceFilter(choices=SyncRun.State.choices, empty_label=None)

    class Meta:
        model = SyncRun
        fields = ()


class DeadLetterFilter(filters.FilterSet):  # type: ignore[misc]
    """`GET /api/admin/dead-letters/`."""

    state = filters.ChoiceFilter(choices=DeadLetter.State.choices, empty_label=None)
    source = filters.ChoiceFilter(choices=DeadLetter.Source.choices, empty_label=None)
    code = Text(label="The code of the reason.")
    key = Text(label="The `skill_id` or category that it concerns, if that could be read.")

    class Meta:
        model = DeadLetter
        fields = ()


class AuditFilter(filters.FilterSet):  # type: ignore[misc]
    """`GET /api/admin/audit/`."""

    actor = Text(label="`agent:NAME` or `user:NAME`.")
    verb = Text(label="The action's name, such as `reconnect`.")
    outcome = filters.ChoiceFilter(choices=AuditRow.Outcome.choices, empty_label=None)
    allowed = filters.ChoiceFilter(
        choices=[("true", "true"), ("false", "false")],
        method="by_decision",
        empty_label=None,
        label="Whether the policy allowed the action.",
    )
    since = TimestampFilterField(field_name="at", lookup_expr="gte", label="At or after this time (ISO 8601).")
    until = TimestampFilterField(field_name="at", lookup_expr="lt", label="Before this time (ISO 8601).")

    class Meta:
        model = AuditRow
        fields = ()

    def by_decision(self, rows: QuerySet[AuditRow], name: str, value: str) -> QuerySet[AuditRow]:
        return rows.filter(allowed=value == "true")
