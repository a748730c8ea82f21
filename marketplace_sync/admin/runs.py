"""Sync runs: their progress, results and changes, and their removals on hold."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.action_views import ActionButton, action_button, action_response, perform_action
from marketplace_sync.admin.base import ManagementAdmin
from marketplace_sync.admin.filters import parse_id
from marketplace_sync.admin.formatting import EMPTY, badge, column, duration, timestamp, timestamp_and_age, untrusted
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import ApproveRemoval, DismissRemoval
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.removals import why_closed
from marketplace_sync.models import Command, HeldRemoval, Skill, SyncRun

State = SyncRun.State

# The removals on hold per page; a run may have as many as there are skills.
REMOVALS_PER_PAGE = 50


def run_link(run_id: int | None) -> SafeString | str:
    """Return a link to a sync run; "–" for a change that the stream brought."""
    if run_id is None:
        return EMPTY
    url = reverse("admin:marketplace_sync_syncrun_change", args=(run_id,))
    return format_html('<a class="mm-link" href="{}">sync run {}</a>', url, run_id)


@admin.register(SyncRun)
class SyncRunAdmin(ManagementAdmin):
    """The sync runs, with the buttons for removals on hold."""

    detail_template = "admin/marketplace_sync/run.html"
    list_display = (
        "number",
        "state_badge",
        column("reason", untrusted, "Cause"),
        column("started_at", timestamp, "Started", order="id"),
        "run_duration",
        "pages",
        column("listed", order=None),
        column("created", order=None),
        column("updated", order=None),
        column("removed", order=None),
        "on_hold",
        column("refused", order=None),
    )
    list_filter = ("state", "is_clean")
    ordering = ("-id",)

    @admin.display(description="No.", ordering="id")
    def number(self, row: SyncRun) -> str:
        return f"#{row.pk}"

    @admin.display(description="State", ordering="state")
    def state_badge(self, row: SyncRun) -> SafeString:
        return badge(row.state)

    @admin.display(description="Duration")
    def run_duration(self, row: SyncRun) -> str:
        return duration(row.finished_at - row.started_at) if row.finished_at else EMPTY

    @admin.display(description="Pages")
    def pages(self, row: SyncRun) -> str:
        return f"{row.pages_done} of {row.pages_total}" if row.pages_total is not None else str(row.pages_done)

    @admin.display(description="On hold")
    def on_hold(self, row: SyncRun) -> SafeString | str:
        return badge("held", str(row.held_count)) if row.held_count else "0"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:run_id>/approve/", view(self.approve), name="marketplace_sync_syncrun_approve"),
            path("<int:run_id>/dismiss/", view(self.dismiss), name="marketplace_sync_syncrun_dismiss"),
            path("<int:run_id>/now/", view(self.current_state), name="marketplace_sync_syncrun_now"),
            *super().get_urls(),
        ]

    def approve(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Delete the skills whose removal is on hold. The form sends how many the page showed."""
        seen = parse_id(request.POST.get("held_count", ""))
        return self._decide(
            request,
            run_id,
            self._approve,
            lambda: perform_action(request, ApproveRemoval, run_id, held_count=seen),
        )

    def dismiss(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Keep the skills whose removal is on hold."""
        return self._decide(request, run_id, self._dismiss, lambda: perform_action(request, DismissRemoval, run_id))

    def _decide(
        self,
        request: HttpRequest,
        run_id: int,
        button: Callable[[HttpRequest, SyncRun], list[ActionButton]],
        perform: Callable[[], Any],
    ) -> HttpResponse:
        def done(command: Command) -> HttpResponse:
            return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(command.pk,)))

        return action_response(
            self,
            request,
            lambda: button(request, self.row(request, str(run_id))),
            perform,
            done,
            back=reverse("admin:marketplace_sync_syncrun_change", args=(run_id,)),
        )

    def current_state(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Return the part of a running sync's page that changes. The page polls it every second."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = _run_context(self.row(request, str(run_id)), database_now())
        return TemplateResponse(request, "admin/marketplace_sync/run_now.html", context)

    def detail(self, request: HttpRequest, row: SyncRun) -> dict[str, Any]:
        changes = reverse("admin:marketplace_sync_feedchange_changelist")
        is_open = row.held_count > 0 and not why_closed(row)
        buttons = [*self._approve(request, row), *self._dismiss(request, row)] if is_open else []
        return {
            **_run_context(row, database_now()),
            **_removals_on_hold(row, max(parse_id(request.GET.get("removals", "1")), 1)),
            "buttons": buttons,
            "changes_url": f"{changes}?run={row.pk}",
        }

    def _approve(self, request: HttpRequest, row: SyncRun) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_syncrun_approve", args=(row.pk,))
        effect = (
            f"Deletes the {_skills(row)} in the list below. A full sync reads the marketplace first; a skill that is "
            "listed again stays."
        )
        return action_button(
            request,
            ApproveRemoval,
            url,
            effect,
            danger=True,
            hidden=[("held_count", str(row.held_count))],
            label=f"Delete {_skills(row)}",
        )

    def _dismiss(self, request: HttpRequest, row: SyncRun) -> list[ActionButton]:
        if row.state == State.DISMISSED:
            return []
        url = reverse("admin:marketplace_sync_syncrun_dismiss", args=(row.pk,))
        effect = (
            f"Keeps the {_skills(row)} in the list below. They do not count as missing until the marketplace lists "
            "them again, or somebody deletes them here."
        )
        return action_button(request, DismissRemoval, url, effect, label=f"Keep {_skills(row)}")


def _run_context(row: SyncRun, now: datetime) -> dict[str, Any]:
    clean = {True: "yes", False: "no", None: EMPTY}[row.is_clean]
    percent = round(100 * row.pages_done / row.pages_total) if row.pages_total else None
    return {
        "run": row,
        "state": badge(row.state),
        "poll": row.state == State.RUNNING,
        "label_on_hold": "on hold" if row.state == State.HELD else "were on hold",
        "percent": None if percent is None else min(percent, 100),
        "counts": [
            (name, getattr(row, name))
            for name in ("listed", "created", "updated", "unchanged", "stale", "refused", "removed")
        ],
        "facts": [
            ("Cause", untrusted(row.reason)),
            ("Started", timestamp_and_age(row.started_at, now)),
            ("Finished", timestamp_and_age(row.finished_at, now)),
            ("Duration", duration((row.finished_at or now) - row.started_at)),
            ("Pages", f"{row.pages_done} of {EMPTY if row.pages_total is None else row.pages_total}"),
            ("Clean sync", clean),
            ("Why not clean", untrusted(row.unclean_reason)),
            ("Refused rows", f"{row.refused:,}" if row.refused else EMPTY),
            ("Compared with", "the stored rows" if row.by_row else "fingerprints of the stored rows"),
            ("Error", untrusted(row.error)),
            ("Epoch", row.epoch),
        ],
    }


def _removals_on_hold(row: SyncRun, page: int) -> dict[str, Any]:
    """Return one page of the removals on hold, with the names of the skills that the mirror still has."""
    if not row.held_count:
        return {"removals": None}
    removals = HeldRemoval.objects.filter(run=row).order_by("skill_id").values_list("skill_id", flat=True)
    shown = Paginator(removals, REMOVALS_PER_PAGE).get_page(page)
    ids = list(shown.object_list)
    there = {
        skill_id: (pk, name)
        for pk, skill_id, name in Skill.objects.filter(skill_id__in=ids).values_list("pk", "skill_id", "name")
    }
    return {
        "removals": [
            (
                skill_id,
                untrusted(there[skill_id][1]),
                reverse("admin:marketplace_sync_skill_change", args=there[skill_id][:1]),
            )
            if skill_id in there
            else (skill_id, "already deleted from the mirror", "")
            for skill_id in ids
        ],
        "removals_title": "Removals on hold" if row.state == State.HELD else "Removals that were on hold",
        "removals_page": shown,
    }


def _skills(row: SyncRun) -> str:
    return f"{row.held_count:,} skill{'' if row.held_count == 1 else 's'}"
