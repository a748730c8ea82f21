"""Full passes: how far, what came of them, what they changed, and the removals that one held back."""

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

from marketplace_sync.admin.acting import Ask, act, answer, ask
from marketplace_sync.admin.base import ManagementAdmin
from marketplace_sync.admin.filters import number
from marketplace_sync.admin.present import NOTHING, ago, badge, column, moment, span, text
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import ApproveRemoval, DismissRemoval
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.removals import why_closed
from marketplace_sync.models import Command, HeldRemoval, Skill, SyncRun

State = SyncRun.State

# Held removals a page: a run may hold back a whole catalogue.
HELD_SHOWN = 50


def run_link(run_id: int | None) -> SafeString | str:
    """The run that brought something; the stream brought what has none."""
    if run_id is None:
        return NOTHING
    url = reverse("admin:marketplace_sync_syncrun_change", args=(run_id,))
    return format_html('<a class="mm-link" href="{}">run {}</a>', url, run_id)


@admin.register(SyncRun)
class SyncRunAdmin(ManagementAdmin):
    detail_template = "admin/marketplace_sync/run.html"
    list_display = (
        "number",
        "standing",
        column("reason", text, "Why"),
        column("started_at", moment, "Started", order="id"),
        "took",
        "pages",
        column("listed", order=None),
        column("created", order=None),
        column("updated", order=None),
        column("removed", order=None),
        "held",
        column("refused", order=None),
    )
    list_filter = ("state", "is_clean")
    ordering = ("-id",)

    @admin.display(description="Run", ordering="id")
    def number(self, row: SyncRun) -> str:
        return f"#{row.pk}"

    @admin.display(description="State", ordering="state")
    def standing(self, row: SyncRun) -> SafeString:
        return badge(row.state)

    @admin.display(description="Took")
    def took(self, row: SyncRun) -> str:
        return span(row.finished_at - row.started_at) if row.finished_at else NOTHING

    @admin.display(description="Pages")
    def pages(self, row: SyncRun) -> str:
        return f"{row.pages_done} of {row.pages_total}" if row.pages_total is not None else str(row.pages_done)

    @admin.display(description="Held")
    def held(self, row: SyncRun) -> SafeString | str:
        return badge("held", str(row.held_count)) if row.held_count else "0"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:run_id>/approve/", view(self.approve), name="marketplace_sync_syncrun_approve"),
            path("<int:run_id>/dismiss/", view(self.dismiss), name="marketplace_sync_syncrun_dismiss"),
            path("<int:run_id>/now/", view(self.now), name="marketplace_sync_syncrun_now"),
            *super().get_urls(),
        ]

    def approve(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Delete the skills that this run lists as missing; the form says how many its reader has seen."""
        seen = number(request.POST.get("held_count", ""))
        return self._decide(
            request,
            run_id,
            self._approve,
            lambda: act(request, ApproveRemoval, run_id, held_count=seen),
        )

    def dismiss(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Keep the skills that this run lists as missing."""
        return self._decide(request, run_id, self._dismiss, lambda: act(request, DismissRemoval, run_id))

    def _decide(
        self,
        request: HttpRequest,
        run_id: int,
        button: Callable[[HttpRequest, SyncRun], list[Ask]],
        perform: Callable[[], Any],
    ) -> HttpResponse:
        def done(command: Command) -> HttpResponse:
            return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(command.pk,)))

        return answer(
            self,
            request,
            lambda: button(request, self.row(request, str(run_id))),
            perform,
            done,
            back=reverse("admin:marketplace_sync_syncrun_change", args=(run_id,)),
        )

    def now(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """What of a running pass changes by itself."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = _standing(self.row(request, str(run_id)), database_now())
        return TemplateResponse(request, "admin/marketplace_sync/run_now.html", context)

    def detail(self, request: HttpRequest, row: SyncRun) -> dict[str, Any]:
        changes = reverse("admin:marketplace_sync_feedchange_changelist")
        is_open = row.held_count > 0 and not why_closed(row)
        asks = [*self._approve(request, row), *self._dismiss(request, row)] if is_open else []
        return {
            **_standing(row, database_now()),
            **_held(row, max(number(request.GET.get("held", "1")), 1)),
            "asks": asks,
            "changes_url": f"{changes}?run={row.pk}",
        }

    def _approve(self, request: HttpRequest, row: SyncRun) -> list[Ask]:
        url = reverse("admin:marketplace_sync_syncrun_approve", args=(row.pk,))
        explain = (
            f"Deletes the {row.held_count:,} skills of the list below. A full sync reads the marketplace first; "
            "a skill that it lists again stays."
        )
        return ask(
            request,
            ApproveRemoval,
            url,
            explain,
            danger=True,
            hidden=[("held_count", str(row.held_count))],
            label=f"Delete {row.held_count:,} skill{'' if row.held_count == 1 else 's'}",
        )

    def _dismiss(self, request: HttpRequest, row: SyncRun) -> list[Ask]:
        if row.state == State.DISMISSED:
            return []
        url = reverse("admin:marketplace_sync_syncrun_dismiss", args=(row.pk,))
        explain = (
            f"Keeps these {row.held_count:,} skills. They do not count as missing until the marketplace lists them "
            "again, or somebody deletes them here."
        )
        label = f"Keep {row.held_count:,} skill{'' if row.held_count == 1 else 's'}"
        return ask(request, DismissRemoval, url, explain, label=label)


def _standing(row: SyncRun, now: datetime) -> dict[str, Any]:
    clean = {True: "yes", False: "no", None: NOTHING}[row.is_clean]
    share = round(100 * row.pages_done / row.pages_total) if row.pages_total else None
    return {
        "run": row,
        "state": badge(row.state),
        "look_again": row.state == State.RUNNING,
        "share": None if share is None else min(share, 100),
        "counts": [
            (name, getattr(row, name))
            for name in ("listed", "created", "updated", "unchanged", "stale", "refused", "removed")
        ],
        "facts": [
            ("Why", text(row.reason)),
            ("Started", ago(row.started_at, now)),
            ("Finished", ago(row.finished_at, now)),
            ("Took", span((row.finished_at or now) - row.started_at)),
            ("Pages", f"{row.pages_done} of {NOTHING if row.pages_total is None else row.pages_total}"),
            ("Clean", clean),
            ("Why not clean", text(row.unclean_reason)),
            ("Could not be read", f"{row.refused:,} listed records" if row.refused else NOTHING),
            ("Compared", "the stored rows" if row.by_row else "their fingerprints"),
            ("Error", text(row.error)),
            ("Epoch of the lease", row.epoch),
        ],
    }


def _held(row: SyncRun, page: int) -> dict[str, Any]:
    """One page of the removals, with the names of the skills that are still there."""
    if not row.held_count:
        return {"held": None}
    removals = HeldRemoval.objects.filter(run=row).order_by("skill_id").values_list("skill_id", flat=True)
    shown = Paginator(removals, HELD_SHOWN).get_page(page)
    ids = list(shown.object_list)
    there = {
        skill_id: (pk, name)
        for pk, skill_id, name in Skill.objects.filter(skill_id__in=ids).values_list("pk", "skill_id", "name")
    }
    return {
        "held": [
            (
                skill_id,
                text(there[skill_id][1]),
                reverse("admin:marketplace_sync_skill_change", args=there[skill_id][:1]),
            )
            if skill_id in there
            else (skill_id, "no longer in the mirror", "")
            for skill_id in ids
        ],
        "held_page": shown,
    }
