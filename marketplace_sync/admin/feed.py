"""The change feed: every change that was committed to the mirror, newest first."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ReadOnlyAdmin, Section
from marketplace_sync.admin.filters import number, typed
from marketplace_sync.admin.paging import CappedPaginator
from marketplace_sync.admin.present import NOTHING, badge, column, moment, pretty_json, text
from marketplace_sync.admin.runs import run_link
from marketplace_sync.admin.sites import reverse
from marketplace_sync.models import Category, FeedChange, Skill

# Changes of one record that a detail page shows; the feed has them all.
SHOWN = 12


def changes_url(key: str) -> str:
    """The feed of one record."""
    return f"{reverse('admin:marketplace_sync_feedchange_changelist')}?{urlencode({'key': key})}"


def gone_url(skill_id: str) -> str:
    """Return the address of the page of a deleted skill."""
    return f"{reverse('admin:marketplace_sync_skill_gone')}?{urlencode({'key': skill_id})}"


def latest_changes(key: str, of: str) -> list[FeedChange]:
    """The last changes of the skill or category `key`; `of` is `skill` or `category`."""
    kinds = [kind for kind in FeedChange.Kind if (kind.startswith("category")) == (of == "category")]
    rows = FeedChange.objects.filter(key=key, kind__in=kinds).order_by("-seq").defer("data")
    return list(rows[:SHOWN])


@admin.register(FeedChange)
class FeedChangeAdmin(ReadOnlyAdmin):
    paginator = CappedPaginator
    list_display = (
        column("seq", str, "Seq"),
        column("kind", badge, "What", order=None),
        column("key", text, "Key", order=None),
        "what",
        column("at", moment, "At", order=None),
        column("source", str, order=None),
        "run",
    )
    list_filter = (
        "kind",
        "source",
        typed("key", "key", lambda rows, value: rows.filter(key=value), hint="skill id or category"),
        typed("run", "run", lambda rows, value: rows.filter(run_id=number(value)), hint="number"),
    )
    ordering = ("-seq",)

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        # The list shows no record, and a created one is whole in `data`.
        return rows.defer("data") if self.is_list(request) else rows

    @admin.display(description="Fields")
    def what(self, row: FeedChange) -> SafeString | str:
        return text(", ".join(map(str, row.fields)))

    @admin.display(description="Run")
    def run(self, row: FeedChange) -> SafeString | str:
        return run_link(row.run_id)

    def detail(self, request: HttpRequest, row: FeedChange) -> dict[str, Any]:
        facts = [
            ("Seq", row.seq),
            ("What", badge(row.kind)),
            ("Key", text(row.key)),
            ("Record", _record_link(row)),
            ("All its changes", format_html('<a class="mm-link" href="{}">in the feed</a>', changes_url(row.key))),
            ("At", moment(row.at)),
            ("Came by", row.source),
            ("Run", run_link(row.run_id)),
            ("Fields", text(", ".join(map(str, row.fields)))),
        ]
        return {
            "sections": [
                Section(f"Change {row.seq}", facts),
                Section("The whole record" if not row.fields else "Changed to", preformatted=pretty_json(row.data)),
            ]
        }


def _record_link(row: FeedChange) -> SafeString | str:
    """The skill or category as it is now."""
    model: Any = Category if row.kind.startswith("category") else Skill
    field = "name" if model is Category else "skill_id"
    pk = model.objects.filter(**{field: row.key}).values_list("pk", flat=True).first()
    if pk is None and model is Skill:
        return format_html('<a class="mm-link" href="{}">deleted</a>', gone_url(row.key))
    if pk is None:
        return NOTHING
    url = reverse(f"admin:marketplace_sync_{model._meta.model_name}_change", args=(pk,))
    return format_html('<a class="mm-link" href="{}">as it is now</a>', url)
