"""The overview: the state of the mirror on one page. Each part is for those who may see the page that it links to.

The page is complete without scripts. With scripts it updates itself: it fetches its parts every two seconds (`now`),
the parts that cost more to count less often (`now?all=1`), and the figures of the charts. It follows the change feed
over the WebSocket like any other client.
"""

from datetime import datetime
from typing import Any

from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import get_script_prefix

from marketplace_sync.admin.charts import recent_figures
from marketplace_sync.admin.commands import command_status
from marketplace_sync.admin.filters import parse_id
from marketplace_sync.admin.formatting import EMPTY, badge, duration, humanize, latency, untrusted
from marketplace_sync.admin.health import health
from marketplace_sync.admin.sites import may_view, reverse, set_current_site
from marketplace_sync.admin.websocket import MEANING, stream_buttons
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.mirror.status import Status, freshness, status
from marketplace_sync.models import Category, Command, DeadLetter, FeedChange, Skill, SyncRun, WebSocketState
from marketplace_sync.monitoring.judgement import judgement
from marketplace_sync.visible import pattern

TITLE = "Overview"
RUNS_SHOWN = 5
RUNS_ON_HOLD = 3
CATEGORIES_SHOWN = 10
CHANGES_SHOWN = 12
# The names that one request may ask for; a page shows fewer changes.
MAX_NAMES = 50

Context = dict[str, Any]

TEMPLATES = "admin/marketplace_sync/overview"
# Each part is an element with an id, by which the script replaces it. A part that the visitor may not see is empty.
PARTS = [
    f"{TEMPLATES}/{part}.html"
    for part in ("clock", "command", "status", "figures", "todo", "sync_runs", "catalogue", "totals")
]

# For an admin site's `index_template`, with `overview_context` as unfold's `DASHBOARD_CALLBACK`.
INDEX_TEMPLATE = f"{TEMPLATES}/page.html"


def overview_context(request: HttpRequest, context: Context) -> Context:
    """Return the context of the whole page; unfold's `DASHBOARD_CALLBACK`."""
    set_current_site(request)
    latest = FeedChange.objects.order_by("-seq").values_list("seq", flat=True)
    shown = list(latest[:CHANGES_SHOWN]) if may_view(request, FeedChange) else []
    parts = _parts(request, everything=True)
    return {
        **context,
        **parts,
        "title": TITLE,
        **(stream_buttons(request, parts["daemon"], overview=True) if "daemon" in parts else {}),
        # For the scripts.
        "page": {
            "now": reverse("overview:now"),
            "command": _wanted_command(request),
            "figures": reverse("overview:figures"),
            "names": reverse("overview:names"),
            # Channels' routes do not include the path that a proxy serves the site under.
            "feed": f"{get_script_prefix()}ws/changes/",
            "change": reverse("admin:marketplace_sync_feedchange_change", args=(0,)),
            # The feed sends the latest changes too, so only the script renders changes.
            "after": shown[-1] - 1 if shown else 0,
            "shown": CHANGES_SHOWN,
            "unseen": pattern(javascript=True),
        },
    }


def current_parts(request: HttpRequest) -> HttpResponse:
    """Return the parts that change; with `?all=1` also those that cost more to count."""
    context = {**_parts(request, everything=request.GET.get("all") == "1"), "parts": PARTS}
    answer = TemplateResponse(request, f"{TEMPLATES}/parts.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


def names(request: HttpRequest) -> HttpResponse:
    """Return the names of skills by id: `?key=...`, repeatable. The feed sends only the fields that changed."""
    if not may_view(request, Skill):
        return HttpResponse(status=403)
    keys = [key for key in request.GET.getlist("key") if "\0" not in key][:MAX_NAMES]
    found = dict(Skill.objects.filter(skill_id__in=keys).values_list("skill_id", "name"))
    return JsonResponse({"names": found})


def _parts(request: HttpRequest, *, everything: bool) -> Context:
    """Return the context of each part that the visitor may see; other parts are not read from the database."""
    judged = judgement()
    # If the database is away, these raise, and the answer is the page for that error.
    daemon = judged.facts.status if judged.facts is not None else status()
    now = judged.facts.now if judged.facts is not None else database_now()
    context: Context = {"now": now}
    if may_view(request, Skill):
        state = daemon.row.state
        context |= {"may_see_catalogue": True, "state": badge(state), "meaning": MEANING[state]}
        context |= health(request, judged.report)
        context["in_sync_as_of"] = freshness().as_of
        if everything:
            context["catalogue"] = _catalogue()
    if may_view(request, WebSocketState):
        context |= _daemon(daemon, now)
    if (wanted := _wanted_command(request)) and may_view(request, Command):
        command = Command.objects.filter(pk=wanted).first()
        context["command"] = command_status(command, now, alive=daemon.alive) if command is not None else None
    context["runs"] = None
    todo: dict[str, list[Context]] = {}  # by the sentence for an empty list
    if may_view(request, SyncRun):
        context["runs"] = _runs(now)
        todo["No removals on hold."] = _removals_on_hold()
    if may_view(request, DeadLetter):
        todo["No open dead letters."] = _dead_letters()
    return context | {
        "may_see_todo": bool(todo),
        "nothing_to_do": " ".join(todo),
        "todo": [item for items in todo.values() for item in items],
    }


def _wanted_command(request: HttpRequest) -> int:
    """Return the command whose button led here; 0 for none."""
    return max(parse_id(request.GET.get("command", "")), 0)


def _daemon(daemon: Status, now: datetime) -> Context:
    row, figures = daemon.row, recent_figures(now)
    return {
        "daemon": daemon,
        "row": row,
        "since": row.state_since if daemon.alive else row.last_message_at,
        "next_attempt": row.next_ws_attempt_at if daemon.alive else None,
        "lag": (latency(figures.lag_p50), latency(figures.lag_p99)),
        "received_rate": _rate(figures.rates["received"]),
        "applied_rate": _rate(figures.rates["applied"]),
        "dropped_rate": _rate(figures.rates["shed"] + figures.rates["rejected"]),
        "totals": [(humanize(name), f"{getattr(row, name):,}") for name in TOTALS],
    }


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _runs(now: datetime) -> list[Context]:
    """Return the last sync runs, the newest first; a running one with its progress in percent."""
    return [
        {
            "run": row,
            "badge": badge(row.state),
            "running": row.state == SyncRun.State.RUNNING,
            "percent": min(round(100 * row.pages_done / row.pages_total), 100) if row.pages_total else None,
            "summary": _summary(row, now),
        }
        for row in SyncRun.objects.order_by("-id")[:RUNS_SHOWN]
    ]


def _summary(row: SyncRun, now: datetime) -> str:
    """Return the progress, the counts and the duration of a sync run in one line."""
    pages = f"page {row.pages_done:,} of {EMPTY if row.pages_total is None else f'{row.pages_total:,}'}"
    counts = {name: getattr(row, name) for name in ("created", "updated", "removed", "refused")}
    counts["on hold" if row.state == SyncRun.State.HELD else "were on hold"] = row.held_count
    running = [pages] if row.state == SyncRun.State.RUNNING else []
    found = [f"{row.listed:,} listed", *(f"{count:,} {name}" for name, count in counts.items() if count)]
    return ", ".join([*running, *found, f"in {duration((row.finished_at or now) - row.started_at)}"])


def _removals_on_hold() -> list[Context]:
    rows = SyncRun.objects.filter(state=SyncRun.State.HELD).order_by("-id")[:RUNS_ON_HOLD]
    return [
        {
            "what": f"{row.held_count:,} removal{'' if row.held_count == 1 else 's'} on hold in sync run {row.pk}",
            "why": row.held_reason,
            "do": "Review",
            "url": reverse("admin:marketplace_sync_syncrun_change", args=(row.pk,)),
        }
        for row in rows
    ]


def _dead_letters() -> list[Context]:
    rows = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    newest = rows.order_by("-last_seen_at").defer("head").first()
    if newest is None:
        return []
    count = rows.count()
    return [
        {
            "what": "1 open dead letter" if count == 1 else f"{count:,} open dead letters",
            "why": f"The newest: {newest.reason}",
            "do": "Replay or discard",
            "url": f"{reverse('admin:marketplace_sync_deadletter_changelist')}?state__exact=open",
        }
    ]


def _catalogue() -> Context:
    """Return the number of skills and categories, and the categories with the most skills."""
    # Counted in the index by category alone; grouping by `Category` would group by each of its columns.
    counts = Skill.objects.exclude(category=None).order_by().values_list("category").annotate(size=Count("pk"))
    largest = list(counts.order_by("-size", "category")[:CATEGORIES_SHOWN])
    names = dict(Category.objects.filter(pk__in=[pk for pk, _ in largest]).values_list("pk", "name"))
    most = max((size for _, size in largest), default=1)
    return {
        "skills": f"{Skill.objects.count():,}",
        "categories": f"{Category.objects.count():,}",
        "largest": [
            {
                "name": untrusted(names[pk]),
                "size": f"{size:,}",
                "percent": round(100 * size / most, 1),
                "url": reverse("admin:marketplace_sync_category_change", args=(pk,)),
            }
            for pk, size in largest
            if pk in names  # it may have been deleted between the two queries
        ],
    }
