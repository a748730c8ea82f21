"""The audit log: every management decision, allowed or refused. It is read here; nothing on a page changes it."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.filters import typed
from marketplace_sync.admin.paging import CappedPaginator
from marketplace_sync.admin.present import NOTHING, ago, badge, column, moment, pretty_json, text, words
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import ACTIONS
from marketplace_sync.governance.refusals import FOLDED_VERB
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import AuditRow


class VerbFilter(admin.SimpleListFilter):
    """By what was asked for; the actions are known, so nothing has to be looked for."""

    title = "action"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((action.verb, action.label) for action in ACTIONS), (FOLDED_VERB, "Refused requests, counted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditRow]) -> QuerySet[AuditRow]:
        return queryset.filter(verb=self.value()) if self.value() else queryset


@admin.register(AuditRow)
class AuditAdmin(ManagementAdmin):
    paginator = CappedPaginator
    list_display = (
        column("at", moment, "When", order="id"),
        column("actor", text, "Who", order=None),
        column("verb", words, "What", order=None),
        column("target", text, order=None),
        column("outcome", badge, order=None),
        column("reason", text, order=None),
        "levels",
        column("origin", text, "From", order=None),
    )
    list_filter = (
        "outcome",
        VerbFilter,
        typed("actor", "actor", lambda rows, value: rows.filter(actor=value), hint="user:NAME or agent:NAME"),
        "at",
    )
    ordering = ("-id",)

    @admin.display(description="Needed / had")
    def levels(self, row: AuditRow) -> str:
        return f"{row.required or NOTHING} / {row.actual or NOTHING}"

    def detail(self, request: HttpRequest, row: AuditRow) -> dict[str, Any]:
        facts = [
            ("When", ago(row.at, database_now())),
            ("Who", text(row.actor)),
            ("Kind of actor", row.actor_kind),
            ("What", words(row.verb)),
            ("To", text(row.target)),
            ("Outcome", badge(row.outcome)),
            ("Reason given", text(row.reason)),
            ("Needed", row.required or NOTHING),
            ("Had", row.actual or NOTHING),
            ("From", text(row.origin)),
            ("Request", _request_link(row.command_id)),
        ]
        return {
            "sections": [
                Section(f"Decision {row.pk}", facts),
                Section("Details", preformatted=pretty_json(row.details)),
            ]
        }


def _request_link(command_id: int | None) -> SafeString | str:
    """The daemon's answer; its row is forgotten earlier than the audit's."""
    if command_id is None:
        return NOTHING
    url = reverse("admin:marketplace_sync_command_change", args=(command_id,))
    return format_html('<a class="mm-link" href="{}">#{}</a>', url, command_id)
