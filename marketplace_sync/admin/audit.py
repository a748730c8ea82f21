"""The audit log: every decision about a management action, allowed or refused. No page changes it."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.filters import text_filter
from marketplace_sync.admin.formatting import (
    EMPTY,
    badge,
    column,
    humanize,
    pretty_json,
    timestamp,
    timestamp_and_age,
    untrusted,
)
from marketplace_sync.admin.paging import CappedPaginator
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import ACTIONS
from marketplace_sync.governance.refusals import FOLDED_VERB
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import AuditRow


class VerbFilter(admin.SimpleListFilter):
    """Filter by action. The choices are the actions in the code, so no query is needed for them."""

    title = "action"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((action.verb, action.label) for action in ACTIONS), (FOLDED_VERB, "Denied requests, counted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditRow]) -> QuerySet[AuditRow]:
        return queryset.filter(verb=self.value()) if self.value() else queryset


@admin.register(AuditRow)
class AuditAdmin(ManagementAdmin):
    """The audit rows."""

    paginator = CappedPaginator
    list_display = (
        column("at", timestamp, "Time", order="id"),
        column("actor", untrusted, order=None),
        column("verb", humanize, "Action", order=None),
        column("target", untrusted, order=None),
        column("outcome", badge, order=None),
        column("reason", untrusted, order=None),
        "levels",
        column("origin", untrusted, order=None),
    )
    list_filter = (
        "outcome",
        VerbFilter,
        text_filter("actor", "actor", lambda rows, value: rows.filter(actor=value), hint="user:NAME or agent:NAME"),
        "at",
    )
    ordering = ("-id",)

    @admin.display(description="Required / actual")
    def levels(self, row: AuditRow) -> str:
        return f"{row.required or EMPTY} / {row.actual or EMPTY}"

    def detail(self, request: HttpRequest, row: AuditRow) -> dict[str, Any]:
        facts = [
            ("Time", timestamp_and_age(row.at, database_now())),
            ("Actor", untrusted(row.actor)),
            ("Kind of actor", row.actor_kind),
            ("Action", humanize(row.verb)),
            ("Target", untrusted(row.target)),
            ("Outcome", badge(row.outcome)),
            ("Reason", untrusted(row.reason)),
            ("Required maturity", row.required or EMPTY),
            ("Actual maturity", row.actual or EMPTY),
            ("Origin", untrusted(row.origin)),
            ("Command", _command_link(row.command_id)),
        ]
        return {
            "sections": [
                Section(f"Audit row {row.pk}", facts),
                Section("Details", preformatted=pretty_json(row.details)),
            ]
        }


def _command_link(command_id: int | None) -> SafeString | str:
    """Return a link to the command. Commands are deleted earlier than audit rows."""
    if command_id is None:
        return EMPTY
    url = reverse("admin:marketplace_sync_command_change", args=(command_id,))
    return format_html('<a class="mm-link" href="{}">#{}</a>', url, command_id)
