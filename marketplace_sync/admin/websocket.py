"""The WebSocket page: the state of the stream and of the daemon, and the buttons for them. One row, so no list."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from marketplace_sync.admin.action_views import ActionButton, action_button, action_response, perform_action
from marketplace_sync.admin.base import ManagementAdmin, page_title
from marketplace_sync.admin.commands import NO_DAEMON, latest_commands
from marketplace_sync.admin.filters import parse_id
from marketplace_sync.admin.formatting import EMPTY, badge, humanize, timestamp_and_age, untrusted
from marketplace_sync.admin.health import health
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import Action, Disable, Enable, Reconnect, SyncNow
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, SyncRun, WebSocketState
from marketplace_sync.monitoring.judgement import judgement

HOME = "admin:marketplace_sync_websocketstate_changelist"
# A button on the overview sends this value, and its answer leads back to the overview.
_FROM, _OVERVIEW = "from", "overview"

# The buttons in their order: action, label, effect, and whether it takes something away.
BUTTONS: tuple[tuple[type[Action[Command]], str, str, bool], ...] = (
    (Reconnect, "Reconnect stream", "Closes the stream, opens a new one and resets the failure counters.", False),
    (SyncNow, "Sync now", "Reads the whole listing of the marketplace and applies every difference.", False),
    (Enable, "Enable stream", "Opens the stream and keeps it open.", False),
    (
        Disable,
        "Disable stream",
        "Closes the stream and keeps it closed, also after a restart. Full syncs continue.",
        True,
    ),
)

MEANING = {
    "live": "Connected and in sync: changes arrive as they happen.",
    "catching_up": "Connected. A full sync fetches the changes that were missed before.",
    "connecting": "The first connection is being opened.",
    "reconnecting": "The connection is lost. The daemon tries again after a delay.",
    "polling": "The settings turn the stream off: changes arrive by full syncs only.",
    "suspended": "All reconnect attempts are used up. The stream stays closed until somebody reconnects it.",
    "disabled": "The stream is disabled: changes arrive by full syncs only.",
    "not_running": "The settings turn the mirror off: no daemon is running, and nothing is mirrored.",
}


@admin.register(WebSocketState)
class WebSocketAdmin(ManagementAdmin):
    """The one row of the stream's state."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [path("now/", view(self.current_state), name="marketplace_sync_websocketstate_now")]
        own += [path("buttons/", view(self.buttons), name="marketplace_sync_websocketstate_buttons")]
        own += [
            path(
                f"{action.verb}/",
                view(self.act),
                {"action": action},
                name=f"marketplace_sync_websocketstate_{action.verb}",
            )
            for action, *_ in BUTTONS
        ]
        return own + list(super().get_urls())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Return the page of the one row instead of a list."""
        return self._page(request, "admin/marketplace_sync/websocket.html")

    def buttons(self, request: HttpRequest) -> HttpResponse:
        """Return the buttons in their present state. The page polls them every three seconds."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        overview = request.GET.get(_OVERVIEW) == "1"
        context = stream_buttons(request, status(), overview=overview)
        return TemplateResponse(request, "admin/marketplace_sync/stream_buttons.html", context)

    def current_state(self, request: HttpRequest) -> HttpResponse:
        """Return the part of the page that changes. The page polls it every two seconds."""
        return self._page(request, "admin/marketplace_sync/websocket_now.html")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if object_id != "1":
            raise Http404("The WebSocket state has one row, number 1.")
        return HttpResponseRedirect(reverse(HOME))

    def act(self, request: HttpRequest, action: type[Action[Command]]) -> HttpResponse:
        """Perform the action of one of the buttons."""
        home = reverse("admin:index" if request.POST.get(_FROM) == _OVERVIEW else HOME)

        def done(command: Command) -> HttpResponse:
            return HttpResponseRedirect(f"{home}?command={command.pk}")

        return action_response(
            self, request, lambda: _button(request, action), lambda: perform_action(request, action), done, back=home
        )

    def _page(self, request: HttpRequest, template: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        judged = judgement()
        daemon = judged.facts.status if judged.facts is not None else status()
        now = judged.facts.now if judged.facts is not None else database_now()
        wanted = parse_id(request.GET.get("command", ""))
        commands = latest_commands(now, daemon, wanted=None if wanted < 0 else wanted)
        shown = next((each for each in commands if each.command.pk == wanted), None)
        row = daemon.row
        context = {
            "alive": daemon.alive,
            "state": badge(row.state),
            "meaning": MEANING[row.state],
            **health(request, judged.report),
            "since": timestamp_and_age(row.state_since if daemon.alive else row.last_message_at, now),
            "facts": _stream_facts(daemon, now),
            "daemon_facts": _daemon_facts(daemon, now),
            "totals": [(humanize(name), getattr(row, name)) for name in TOTALS],
            "commands": commands,
            "command": shown,
            "last_run": SyncRun.objects.order_by("-id").first(),
            "poll": shown is not None and shown.open,
            **stream_buttons(request, daemon),
            "now_url": f"{reverse('admin:marketplace_sync_websocketstate_now')}?command={max(wanted, 0)}",
        }
        return TemplateResponse(request, template, {**self.page_context(request, page_title(self.model)), **context})


def stream_buttons(request: HttpRequest, daemon: Status, *, overview: bool = False) -> dict[str, Any]:
    """Return the buttons for this visitor, and the URL to poll them from. `overview`: their answers lead there.

    Of Enable and Disable only the one that would change something is shown. A button whose command the daemon would
    not execute now is disabled and shows the reason.
    """
    without_effect = Enable if daemon.row.enabled else Disable
    url = reverse("admin:marketplace_sync_websocketstate_buttons")
    return {
        "buttons": [
            replace(button, blocked=_blocked(action, daemon))
            for action, *_ in BUTTONS
            if action is not without_effect
            for button in _button(request, action, overview=overview)
        ],
        "buttons_url": f"{url}?{_OVERVIEW}=1" if overview else url,
        "group": "-stream",
    }


def _blocked(action: type[Action[Command]], daemon: Status) -> str:
    """Return why the daemon would not execute the action now; "" if it would."""
    if not daemon.alive:
        return NO_DAEMON
    if action is Reconnect and not daemon.row.enabled:
        return "The stream is disabled. Enable it: that opens a new connection."
    return ""


def _button(request: HttpRequest, wanted: type[Action[Command]], *, overview: bool = False) -> list[ActionButton]:
    return [
        button
        for action, label, explanation, danger in BUTTONS
        if action is wanted
        for button in action_button(
            request,
            action,
            reverse(f"admin:marketplace_sync_websocketstate_{action.verb}"),
            explanation,
            danger=danger,
            hidden=[(_FROM, _OVERVIEW)] if overview else [],
            label=label,
        )
    ]


def _stream_facts(daemon: Status, now: datetime) -> list[tuple[str, Any]]:
    row = daemon.row
    return [
        ("Connected", badge("active", "yes") if row.connected else badge("disabled", "no")),
        ("Enabled", badge("enabled", "yes") if row.enabled else badge("disabled", "no: disabled by a command")),
        ("Last connected", timestamp_and_age(row.last_connected_at, now)),
        ("Last message", timestamp_and_age(row.last_message_at, now)),
        ("Last disconnect", untrusted(row.disconnect_reason)),
        ("Next attempt", timestamp_and_age(row.next_ws_attempt_at, now) if daemon.alive else EMPTY),
        ("Consecutive failures", row.consecutive_failures),
        ("Reconnect attempts", row.reconnect_attempts),
        ("Polling since", timestamp_and_age(row.fallback_started_at, now) if daemon.alive else EMPTY),
    ]


def _daemon_facts(daemon: Status, now: datetime) -> list[tuple[str, Any]]:
    return [
        ("State", badge("live", "running") if daemon.alive else badge("not_running", "not running")),
        ("Lease owner", untrusted(daemon.daemon)),
        ("Last heartbeat", timestamp_and_age(daemon.heartbeat_at, now)),
        ("Standby daemons", daemon.standby),
    ]
