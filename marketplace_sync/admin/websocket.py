"""The WebSocket page: how the mirror stands, and the four buttons that steer it. There is one row, so no list."""

from dataclasses import replace
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from marketplace_sync.admin.acting import Ask, act, answer, ask
from marketplace_sync.admin.base import ManagementAdmin
from marketplace_sync.admin.filters import number
from marketplace_sync.admin.health import health
from marketplace_sync.admin.present import NOTHING, ago, badge, text, words
from marketplace_sync.admin.requests import NO_DAEMON, latest
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import Action, Disable, Enable, Reconnect, SyncNow
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, SyncRun, WebSocketState
from marketplace_sync.monitoring.judgement import judgement

HOME = "admin:marketplace_sync_websocketstate_changelist"
# A button on the front page says so, and leads back there.
FROM, FRONT_PAGE = "from", "front"

# The order of the buttons, what each does, and whether it takes something away.
BUTTONS: tuple[tuple[type[Action[Command]], str, bool], ...] = (
    (Reconnect, "Drops the connection, opens a new one at once and starts the counters anew.", False),
    (SyncNow, "Reads the whole listing of the marketplace now, and applies what differs.", False),
    (Enable, "Opens the stream again, and keeps it open.", False),
    (Disable, "Closes the stream and keeps it closed, over restarts too. Polling goes on.", True),
)

MEANING = {
    "live": "Connected and caught up: changes arrive as they happen.",
    "catching_up": "Connected; a full pass brings what was missed meanwhile.",
    "connecting": "The first connection is being opened.",
    "reconnecting": "The connection was lost; it is tried again after a delay.",
    "polling": "There is no stream, as the settings want it: changes come by full syncs alone.",
    "suspended": "All attempts are used up: the stream waits for a person to press Reconnect.",
    "disabled": "The stream is switched off.",
    "not_running": "No daemon is running, as the settings want it: nothing is being mirrored.",
}


@admin.register(WebSocketState)
class WebSocketAdmin(ManagementAdmin):
    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [path("now/", view(self.now), name="marketplace_sync_websocketstate_now")]
        own += [path("buttons/", view(self.buttons), name="marketplace_sync_websocketstate_buttons")]
        own += [
            path(f"{kind.verb}/", view(self.steer), {"kind": kind}, name=f"marketplace_sync_websocketstate_{kind.verb}")
            for kind, _, _ in BUTTONS
        ]
        return own + list(super().get_urls())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Straight to the page."""
        return self._page(request, "admin/marketplace_sync/websocket.html")

    def buttons(self, request: HttpRequest) -> HttpResponse:
        """The buttons as they are now; the page asks for them every few seconds."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        front = request.GET.get("front") == "1"
        context = {**steering(request, status(), front=front), "group": "s" if front else ""}
        return TemplateResponse(request, "admin/marketplace_sync/buttons.html", context)

    def now(self, request: HttpRequest) -> HttpResponse:
        """What of the page changes by itself; the page asks for it every two seconds."""
        return self._page(request, "admin/marketplace_sync/websocket_now.html")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if object_id != "1":
            raise Http404("There is one row, number 1.")
        return HttpResponseRedirect(reverse(HOME))

    def steer(self, request: HttpRequest, kind: type[Action[Command]]) -> HttpResponse:
        """One of the four buttons."""

        home = reverse("admin:index" if request.POST.get(FROM) == FRONT_PAGE else HOME)

        def done(command: Command) -> HttpResponse:
            return HttpResponseRedirect(f"{home}?request={command.pk}")

        return answer(self, request, lambda: _ask(request, kind), lambda: act(request, kind), done, back=home)

    def _page(self, request: HttpRequest, template: str, **more: Any) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        judged = judgement()
        standing = judged.facts.status if judged.facts is not None else status()
        now = judged.facts.now if judged.facts is not None else database_now()
        wanted = number(request.GET.get("request", ""))
        commands = latest(now, standing, wanted=None if wanted < 0 else wanted)
        asked = next((each for each in commands if each.command.pk == wanted), None)
        row = standing.row
        context = {
            "status": standing,
            "row": row,
            "state": badge(row.state),
            "meaning": MEANING[row.state],
            **health(request, judged.report),
            "since": ago(row.state_since, now) if standing.alive else ago(row.last_message_at, now),
            "facts": _facts(standing, now),
            "daemon": _daemon(standing, now),
            "totals": [(words(name), getattr(row, name)) for name in TOTALS],
            "commands": commands,
            "asked": asked,
            "last_run": SyncRun.objects.order_by("-id").first(),
            "look_again": asked is not None and asked.open,
            **steering(request, standing),
            "now_url": f"{reverse('admin:marketplace_sync_websocketstate_now')}?request={max(wanted, 0)}",
        }
        return TemplateResponse(request, template, {**self.page_context(request, "WebSocket"), **context, **more})


def steering(request: HttpRequest, standing: Status, *, front: bool = False) -> dict[str, Any]:
    """Return the buttons for this visitor, and the URL to fetch them from again. `front`: they lead to the front page.

    Of Enable and Disable only the one that changes something is shown. What nobody would carry out says so.
    """
    needless = Enable if standing.row.enabled else Disable
    shown = [kind for kind, _, _ in BUTTONS if kind is not needless]
    return {
        "asks": [
            replace(found, blocked=_blocked(kind, standing))
            for kind in shown
            for found in _ask(request, kind, front=front)
        ],
        "buttons_url": f"{reverse('admin:marketplace_sync_websocketstate_buttons')}{'?front=1' if front else ''}",
    }


def _blocked(kind: type[Action[Command]], standing: Status) -> str:
    """Return why the daemon would not do it now."""
    if not standing.alive:
        return NO_DAEMON
    if kind is Reconnect and not standing.row.enabled:
        return "The stream is disabled. Enable it: that connects at once."
    return ""


def _ask(request: HttpRequest, wanted: type[Action[Command]], *, front: bool = False) -> list[Ask]:
    return [
        found
        for kind, explain, danger in BUTTONS
        if kind is wanted
        for found in ask(
            request,
            kind,
            reverse(f"admin:marketplace_sync_websocketstate_{kind.verb}"),
            explain,
            danger=danger,
            hidden=[(FROM, FRONT_PAGE)] if front else [],
        )
    ]


def _facts(standing: Status, now: Any) -> list[tuple[str, Any]]:
    row = standing.row
    return [
        ("Connected", badge("active", "yes") if row.connected else badge("disabled", "no")),
        ("Wanted", badge("enabled", "yes") if row.enabled else badge("disabled", "no, switched off by a person")),
        ("Last connected", ago(row.last_connected_at, now)),
        ("Last message", ago(row.last_message_at, now)),
        ("Last disconnect", text(row.disconnect_reason)),
        ("Next attempt", ago(row.next_ws_attempt_at, now) if standing.alive else NOTHING),
        ("Failures in a row", row.consecutive_failures),
        ("Attempts since healthy", row.reconnect_attempts),
        ("Polling only since", ago(row.fallback_started_at, now) if standing.alive else NOTHING),
    ]


def _daemon(standing: Status, now: Any) -> list[tuple[str, Any]]:
    return [
        ("Daemon", badge("live", "running") if standing.alive else badge("not_running", "not running")),
        ("Holds the lease", text(standing.daemon)),
        ("Last heartbeat", ago(standing.heartbeat_at, now)),
        ("Standing by", standing.standby),
    ]
