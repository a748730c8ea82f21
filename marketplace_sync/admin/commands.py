"""The commands given to the daemon and their state now, also where no daemon is running."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.formatting import (
    EMPTY,
    badge,
    column,
    duration,
    humanize,
    pretty_json,
    timestamp,
    timestamp_and_age,
    untrusted,
)
from marketplace_sync.admin.sites import reverse
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import has_expired
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, DeadLetter, SyncRun

State = Command.State

NO_DAEMON = "No daemon is running, so the command would expire. Start one with manage.py runsync."
_START_ONE = "Start one with manage.py runsync."


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """The state of a command at one moment. `open`: it may still change, so the page polls it."""

    command: Command
    state: str
    detail: str
    open: bool

    @property
    def badge(self) -> SafeString:
        return badge(self.state)

    @property
    def requested(self) -> SafeString | str:
        return timestamp(self.command.requested_at)


def command_status(command: Command, now: datetime, *, alive: bool) -> CommandStatus:
    """Return the state of a command at `now`, by the database's clock. `alive`: a daemon is running.

    The row of an expired command stays `pending` until a daemon looks at it, so its time is compared here.
    """
    if command.state == State.PENDING:
        if has_expired(command, now):
            return CommandStatus(command, State.EXPIRED, f"No daemon accepted it in time. {_START_ONE}", False)
        if not alive:
            left = duration(command.expires_at - now)
            detail = f"No daemon is running. The command expires in {left}. {_START_ONE}"
            return CommandStatus(command, State.PENDING, detail, True)
        return CommandStatus(command, State.PENDING, "Waiting for the daemon to accept it.", True)
    if command.state == State.ACCEPTED:
        if not alive:
            detail = f"No daemon is running: the one that accepted the command has stopped. {_START_ONE}"
            return CommandStatus(command, State.ACCEPTED, detail, True)
        return CommandStatus(command, State.ACCEPTED, "The daemon is executing it.", True)
    return CommandStatus(command, command.state, result_text(command.result), False)


def result_text(result: Any) -> str:
    """Return the daemon's answer as text: its `detail`, else its counts."""
    if not isinstance(result, dict) or not result:
        return ""
    if "detail" in result:
        return str(result["detail"])
    return ", ".join(f"{humanize(str(name))} {value}" for name, value in result.items())


def latest_commands(now: datetime, daemon: Status, *, wanted: int | None = None, count: int = 6) -> list[CommandStatus]:
    """Return the last `count` commands, the newest first, and the command `wanted` whatever its age."""
    rows = list(Command.objects.order_by("-id")[:count])
    if wanted is not None and all(row.pk != wanted for row in rows):
        rows += Command.objects.filter(pk=wanted)
    return [command_status(row, now, alive=daemon.alive) for row in rows]


@admin.register(Command)
class CommandAdmin(ManagementAdmin):
    """Every command and its answer."""

    detail_template = "admin/marketplace_sync/command.html"
    list_display = (
        "number",
        column("action", badge),
        "state_badge",
        column("requested_by", untrusted, "By"),
        column("reason", untrusted),
        column("requested_at", timestamp, "Issued"),
        column("finished_at", timestamp, "Finished", order=None),
    )
    list_filter = ("state", "action")
    search_fields = ("requested_by",)
    search_help_text = "Actor: user:NAME or agent:NAME"

    @admin.display(description="No.", ordering="id")
    def number(self, row: Command) -> str:
        return f"#{row.pk}"

    @admin.display(description="State", ordering="state")
    def state_badge(self, row: Command) -> SafeString:
        return badge(row.state)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.current_state)
        return [path("<int:command_id>/now/", view, name="marketplace_sync_command_now"), *super().get_urls()]

    def current_state(self, request: HttpRequest, command_id: int) -> HttpResponse:
        """Return the part of the page that changes. The page polls it every second until the command has ended."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.detail(request, self.row(request, str(command_id)))
        return TemplateResponse(request, "admin/marketplace_sync/command_now.html", context)

    def detail(self, request: HttpRequest, row: Command) -> dict[str, Any]:
        now = database_now()
        current = command_status(row, now, alive=status().alive)
        facts = [
            ("Issued by", untrusted(row.requested_by)),
            ("Reason", untrusted(row.reason)),
            ("Issued", timestamp_and_age(row.requested_at, now)),
            *([("Issued again", timestamp_and_age(row.repeated_at, now))] if row.repeated_at else []),
            ("Expires if not started by", timestamp(row.expires_at)),
            ("Accepted", timestamp(row.accepted_at)),
            ("Finished", timestamp(row.finished_at)),
            ("Duration", duration(row.finished_at - row.requested_at) if row.finished_at else EMPTY),
        ]
        return {
            "current": current,
            "answer": untrusted(current.detail),
            "links": _links(row),
            "poll": current.open,
            "sections": [
                Section(f"Command {row.pk}", facts),
                Section("Arguments", preformatted=pretty_json(row.args)),
                *([Section("Result", preformatted=pretty_json(row.result))] if row.result is not None else []),
            ],
        }


def _links(row: Command) -> list[tuple[str, SafeString | str]]:
    """Return links to the command's target, and to the sync run that executes or executed it."""
    args = row.args if isinstance(row.args, dict) else {}
    result = row.result if isinstance(row.result, dict) else {}
    links = [
        ("Target", _link(SyncRun, args.get("run"), "sync run")),
        ("Target", _link(DeadLetter, args.get("dead_letter"), "dead letter")),
        ("Executed by", _link(SyncRun, result.get("run"), "sync run")),
    ]
    if row.state == State.ACCEPTED and row.action in (Command.Action.SYNC, Command.Action.APPROVE):
        running = SyncRun.objects.filter(state=SyncRun.State.RUNNING).values_list("pk", flat=True).first()
        links.append(("Now running", _link(SyncRun, running, "sync run")))
    return [(label, link) for label, link in links if link]


def _link(model: type[Model], pk: object, name: str) -> SafeString | str:
    """Return the row's name, linked to its page while the row exists; "" without an id."""
    if not isinstance(pk, int):
        return ""
    label = f"{name} {pk}"
    if not model._default_manager.filter(pk=pk).exists():
        return f"{label}, which is no longer kept"
    url = reverse(f"admin:marketplace_sync_{model._meta.model_name}_change", args=(pk,))
    return format_html('<a class="mm-link" href="{}">{}</a>', url, label)
