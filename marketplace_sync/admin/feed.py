"""The change feed: every committed change of the mirror, the newest first."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from marketplace_sync.admin.base import ReadOnlyAdmin, Section
from marketplace_sync.admin.filters import parse_id, text_filter
from marketplace_sync.admin.formatting import EMPTY, badge, column, pretty_json, timestamp, untrusted
from marketplace_sync.admin.paging import CappedPaginator
from marketplace_sync.admin.runs import run_link
from marketplace_sync.admin.sites import reverse
from marketplace_sync.models import Category, FeedChange, Skill

# The changes of one record that its detail page shows. The feed has all of them.
SHOWN = 12


def changes_url(key: str) -> str:
    """Return the URL of the feed of one record."""
    return f"{reverse('admin:marketplace_sync_feedchange_changelist')}?{urlencode({'key': key})}"


def deleted_skill_url(skill_id: str) -> str:
    """Return the URL of the page of a deleted skill."""
    return f"{reverse('admin:marketplace_sync_skill_deleted')}?{urlencode({'key': skill_id})}"


def latest_changes(key: str, record: str) -> list[FeedChange]:
    """Return the last changes of the record `key`; `record` is `skill` or `category`."""
    kinds = [kind for kind in FeedChange.Kind if (kind.startswith("category")) == (record == "category")]
    rows = FeedChange.objects.filter(key=key, kind__in=kinds).order_by("-seq").defer("data")
    return list(rows[:SHOWN])


def change_row(change: FeedChange) -> tuple[FeedChange, SafeString, SafeString | str]:
    """Return a change, its kind as a badge, and a link to its sync run."""
    return change, badge(change.kind), run_link(change.run_id)


@admin.register(FeedChange)
class FeedChangeAdmin(ReadOnlyAdmin):
    """The rows of the change feed."""

    paginator = CappedPaginator
    list_display = (
        column("seq", str, "Feed number"),
        column("kind", badge, "Change", order=None),
        column("key", untrusted, "Skill id or category", order=None),
        "changed_fields",
        column("at", timestamp, "Time", order=None),
        column("source", str, order=None),
        "run",
    )
    list_filter = (
        "kind",
        "source",
        text_filter("key", "skill id or category", lambda rows, value: rows.filter(key=value), hint="exact id or name"),
        text_filter("run", "sync run", lambda rows, value: rows.filter(run_id=parse_id(value)), hint="number"),
    )
    ordering = ("-seq",)

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        # The list does not show `data`, which for a created record is the whole record.
        return rows.defer("data") if self.is_list(request) else rows

    def title_of(self, row: FeedChange) -> str:
        return capfirst(super().title_of(row))

    @admin.display(description="Fields")
    def changed_fields(self, row: FeedChange) -> SafeString | str:
        return untrusted(", ".join(map(str, row.fields)))

    @admin.display(description="Sync run")
    def run(self, row: FeedChange) -> SafeString | str:
        return run_link(row.run_id)

    def detail(self, request: HttpRequest, row: FeedChange) -> dict[str, Any]:
        facts = [
            ("Feed number", row.seq),
            ("Change", badge(row.kind)),
            ("Skill id or category", untrusted(row.key)),
            ("Record", _record_link(row)),
            (
                "Other changes",
                format_html('<a class="mm-link" href="{}">all changes of this record</a>', changes_url(row.key)),
            ),
            ("Time", timestamp(row.at)),
            ("Source", row.source),
            ("Sync run", run_link(row.run_id)),
            ("Fields", untrusted(", ".join(map(str, row.fields)))),
        ]
        return {
            "sections": [
                Section(f"Feed change {row.seq}", facts),
                Section("New values" if row.fields else "Record", preformatted=pretty_json(row.data)),
            ]
        }


def _record_link(row: FeedChange) -> SafeString | str:
    """Return a link to the record as it is now."""
    model: Any = Category if row.kind.startswith("category") else Skill
    field = "name" if model is Category else "skill_id"
    pk = model.objects.filter(**{field: row.key}).values_list("pk", flat=True).first()
    if pk is None and model is Skill:
        return format_html('<a class="mm-link" href="{}">deleted</a>', deleted_skill_url(row.key))
    if pk is None:
        return EMPTY
    url = reverse(f"admin:marketplace_sync_{model._meta.model_name}_change", args=(pk,))
    return format_html('<a class="mm-link" href="{}">as it is now</a>', url)
