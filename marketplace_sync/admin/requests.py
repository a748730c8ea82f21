"""What was asked of the daemon, and how it stands now: also where no daemon is there to say so."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.present import NOTHING, ago, badge, column, moment, pretty_json, span, text, words
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import has_expired
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, DeadLetter, SyncRun

State = Command.State

NO_DAEMON = "No daemon is running, so nobody would carry it out. Start one with manage.py runsync."
START_ONE = "Start one with `manage.py runsync`."


@dataclass(frozen=True, slots=True)
class Told:
    """A command as it stands at one moment. `open`: an answer may still come, so it is worth looking again."""

    command: Command
    state: str
    says: str
    open: bool

    @property
    def badge(self) -> SafeString:
        return badge(self.state)

    @property
    def requested(self) -> SafeString | str:
        return moment(self.command.requested_at)


def told(command: Command, now: datetime, *, alive: bool) -> Told:
    """What is true of `command` at `now`, by the database's clock; `alive`: a daemon is running.

    An expired one keeps saying `pending` in its row until a daemon comes by, so that is read from its time.
    """
    if command.state == State.PENDING:
        if has_expired(command, now):
            return Told(command, State.EXPIRED, f"No daemon took this on in time. {START_ONE}", False)
        if not alive:
            left = span(command.expires_at - now)
            return Told(command, State.PENDING, f"No daemon is running. This expires in {left}. {START_ONE}", True)
        return Told(command, State.PENDING, "Waiting for the daemon to take it on.", True)
    if command.state == State.ACCEPTED:
        if not alive:
            return Told(command, State.ACCEPTED, "No daemon is running: the one that took this on has gone.", True)
        return Told(command, State.ACCEPTED, "The daemon is at it.", True)
    return Told(command, command.state, said(command.result), False)


def said(result: Any) -> str:
    """The daemon's answer in words: its `detail`, or what it counted."""
    if not isinstance(result, dict) or not result:
        return ""
    if "detail" in result:
        return str(result["detail"])
    return ", ".join(f"{words(str(name))} {value}" for name, value in result.items())


def latest(now: datetime, standing: Status, *, wanted: int | None = None, count: int = 6) -> list[Told]:
    """The last `count` commands, newest first, `wanted` among them whatever its age."""
    rows = list(Command.objects.order_by("-id")[:count])
    if wanted is not None and all(row.pk != wanted for row in rows):
        rows += Command.objects.filter(pk=wanted)
    return [told(row, now, alive=standing.alive) for row in rows]


@admin.register(Command)
class CommandAdmin(ManagementAdmin):
    detail_template = "admin/marketplace_sync/command.html"
    list_display = (
        "number",
        column("action", badge, "What"),
        "standing",
        column("requested_by", text, "By"),
        column("reason", text),
        column("requested_at", moment, "Requested"),
        column("finished_at", moment, "Finished", order=None),
    )
    list_filter = ("state", "action")
    search_fields = ("requested_by",)
    search_help_text = "Who asked"

    @admin.display(description="No.", ordering="id")
    def number(self, row: Command) -> str:
        return f"#{row.pk}"

    @admin.display(description="State", ordering="state")
    def standing(self, row: Command) -> SafeString:
        return badge(row.state)

    def get_urls(self) -> list[URLPattern]:
        now = self.admin_site.admin_view(self.now)
        return [path("<int:command_id>/now/", now, name="marketplace_sync_command_now"), *super().get_urls()]

    def now(self, request: HttpRequest, command_id: int) -> HttpResponse:
        """What of the page changes until the command has ended; the page asks for it every second."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.detail(request, self.row(request, str(command_id)))
        return TemplateResponse(request, "admin/marketplace_sync/command_now.html", context)

    def detail(self, request: HttpRequest, row: Command) -> dict[str, Any]:
        now = database_now()
        view = told(row, now, alive=status().alive)
        facts = [
            ("Asked by", text(row.requested_by)),
            ("Reason", text(row.reason)),
            ("Requested", ago(row.requested_at, now)),
            *([("Requested again", ago(row.repeated_at, now))] if row.repeated_at else []),
            ("Expires unless taken on by", moment(row.expires_at)),
            ("Taken on", moment(row.accepted_at)),
            ("Finished", moment(row.finished_at)),
            ("Took", span(row.finished_at - row.requested_at) if row.finished_at else NOTHING),
        ]
        return {
            "view": view,
            "answer": text(view.says),
            "links": _links(row),
            "look_again": view.open,
            "sections": [
                Section(f"Request {row.pk}", facts),
                Section("Arguments", preformatted=pretty_json(row.args)),
                *([Section("Result", preformatted=pretty_json(row.result))] if row.result is not None else []),
            ],
        }


def _links(row: Command) -> list[tuple[str, SafeString | str]]:
    """What the command is about, and the sync run that carries or carried it out; each with the page that shows it."""
    args = row.args if isinstance(row.args, dict) else {}
    result = row.result if isinstance(row.result, dict) else {}
    links = [
        ("About", _link(SyncRun, args.get("run"), "sync run")),
        ("About", _link(DeadLetter, args.get("dead_letter"), "dead letter")),
        ("Done by", _link(SyncRun, result.get("run"), "sync run")),
    ]
    if row.state == State.ACCEPTED and row.action in (Command.Action.SYNC, Command.Action.APPROVE):
        running = SyncRun.objects.filter(state=SyncRun.State.RUNNING).values_list("pk", flat=True).first()
        links.append(("Under way", _link(SyncRun, running, "sync run")))
    return [(label, link) for label, link in links if link]


def _link(model: type[Model], pk: object, name: str) -> SafeString | str:
    """The row by its name, linked where it is still kept; "" for none."""
    if not isinstance(pk, int):
        return ""
    shown = f"{name} {pk}"
    if not model._default_manager.filter(pk=pk).exists():
        return f"{shown}, which is no longer kept"
    url = reverse(f"admin:marketplace_sync_{model._meta.model_name}_change", args=(pk,))
    return format_html('<a class="mm-link" href="{}">{}</a>', url, shown)
