"""The front page: how the mirror does, at a glance, for whoever is logged in; each part for those who may see its page.

It says where things stand without a script too. With one it keeps itself up to date: it asks for its parts every two
seconds (`now`), for what costs more to count less often (`now?all=1`), for the charts' figures, and follows the change
feed over the WebSocket like any other client.
"""

from datetime import datetime
from typing import Any

from django.db.models import Count
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.urls import get_script_prefix

from marketplace_sync.admin.charts import lately
from marketplace_sync.admin.filters import number
from marketplace_sync.admin.health import health
from marketplace_sync.admin.present import NOTHING, badge, delay, span, text, words
from marketplace_sync.admin.requests import told
from marketplace_sync.admin.sites import enter_site, may_view, reverse
from marketplace_sync.admin.websocket import MEANING, steering
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.mirror.status import Status, freshness, status
from marketplace_sync.models import Category, Command, DeadLetter, FeedChange, Skill, SyncRun, WebSocketState
from marketplace_sync.monitoring.judgement import judgement
from marketplace_sync.visible import pattern

PASSES_SHOWN = 5
HELD_SHOWN = 3
CATEGORIES_SHOWN = 10
CHANGES_SHOWN = 12
# Asked for at once; a page shows fewer.
NAMES_AT_MOST = 50

Context = dict[str, Any]

TEMPLATES = "admin/marketplace_sync/overview"
# Each is an element with an id of its own, by which the script knows it; empty for who may not see it.
PARTS = [
    f"{TEMPLATES}/{part}.html"
    for part in ("clock", "answer", "standing", "tiles", "waits", "passes", "sizes", "totals")
]

# For an admin site's `index_template`, with `front_page` as unfold's `DASHBOARD_CALLBACK`.
INDEX_TEMPLATE = f"{TEMPLATES}/page.html"


def front_page(request: HttpRequest, context: Context) -> Context:
    """What the whole page shows; unfold's `DASHBOARD_CALLBACK`."""
    enter_site(request)
    latest = FeedChange.objects.order_by("-seq").values_list("seq", flat=True)
    shown = list(latest[:CHANGES_SHOWN]) if may_view(request, FeedChange) else []
    parts = _parts(request, everything=True)
    return {
        **context,
        **parts,
        "title": "Overview",
        **(steering(request, parts["standing"], front=True) if "standing" in parts else {}),
        # For the scripts.
        "page": {
            "now": reverse("overview:now"),
            "request": _wanted(request),
            "figures": reverse("overview:figures"),
            "names": reverse("overview:names"),
            # The path that the site is served under, as a proxy has it, is not among Channels' routes.
            "feed": f"{get_script_prefix()}ws/changes/",
            "change": reverse("admin:marketplace_sync_feedchange_change", args=(0,)),
            # The feed itself brings the latest changes, so that there is one way in which they are shown.
            "after": shown[-1] - 1 if shown else 0,
            "shown": CHANGES_SHOWN,
            "unseen": pattern(javascript=True),
        },
    }


def now(request: HttpRequest) -> HttpResponse:
    """The parts that change by themselves; `?all=1`: those too that cost more to count."""
    context = {**_parts(request, everything=request.GET.get("all") == "1"), "parts": PARTS}
    answer = TemplateResponse(request, f"{TEMPLATES}/now.html", context)
    answer["Cache-Control"] = "no-store"
    return answer


def names(request: HttpRequest) -> HttpResponse:
    """What the skills of these ids are called: `?key=...`, repeatable. The feed tells changed fields alone."""
    if not may_view(request, Skill):
        return HttpResponse(status=403)
    keys = [key for key in request.GET.getlist("key") if "\0" not in key][:NAMES_AT_MOST]
    found = dict(Skill.objects.filter(skill_id__in=keys).values_list("skill_id", "name"))
    return JsonResponse({"names": found})


def _parts(request: HttpRequest, *, everything: bool) -> Context:
    """Each part for those who may see the page that it is from; what they may not see is not read."""
    judged = judgement()
    # Without a database to ask, what raises here becomes the page that says so.
    standing = judged.facts.status if judged.facts is not None else status()
    at = judged.facts.now if judged.facts is not None else database_now()
    context: Context = {"at": at}
    if may_view(request, Skill):
        moment = freshness()
        state = standing.row.state
        context |= {"catalogue": True, "badge": badge(state), "meaning": MEANING[state]}
        context |= health(request, judged.report)
        context["as_of"] = moment.as_of
        if everything:
            context["sizes"] = _sizes()
    if may_view(request, WebSocketState):
        context |= _standing(standing, at)
    if (wanted := _wanted(request)) and may_view(request, Command):
        asked = Command.objects.filter(pk=wanted).first()
        context["asked"] = told(asked, at, alive=standing.alive) if asked is not None else None
    context["passes"] = None
    waits: list[list[Context]] = []
    if may_view(request, SyncRun):
        context["passes"] = _passes(at)
        waits.append(_held())
    if may_view(request, DeadLetter):
        waits.append(_letters())
    context |= {"sees_waits": bool(waits), "waits": [each for group in waits for each in group]}
    return context


def _wanted(request: HttpRequest) -> int:
    """The request that a button led back with; 0 for none."""
    return max(number(request.GET.get("request", "")), 0)


def _standing(standing: Status, at: datetime) -> Context:
    row, figures = standing.row, lately(at)
    return {
        "standing": standing,
        "row": row,
        "since": row.state_since if standing.alive else row.last_message_at,
        "next_attempt": row.next_ws_attempt_at if standing.alive else None,
        "lag": (delay(figures.lag_p50), delay(figures.lag_p99)),
        "rate": _rate(figures.rates["received"]),
        "applied": _rate(figures.rates["applied"]),
        "lost": _rate(figures.rates["shed"] + figures.rates["rejected"]),
        "totals": [(words(name), f"{getattr(row, name):,}") for name in TOTALS],
    }


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _passes(at: datetime) -> list[Context]:
    """The last passes, the newest first; the one that runs with how far it is."""
    return [
        {
            "run": row,
            "badge": badge(row.state),
            "running": row.state == SyncRun.State.RUNNING,
            "share": min(round(100 * row.pages_done / row.pages_total), 100) if row.pages_total else None,
            "told": _told(row, at),
        }
        for row in SyncRun.objects.order_by("-id")[:PASSES_SHOWN]
    ]


def _told(row: SyncRun, at: datetime) -> str:
    """A pass in a line: how far, how long, and what came of it."""
    pages = f"page {row.pages_done:,} of {NOTHING if row.pages_total is None else f'{row.pages_total:,}'}"
    counts = {name: getattr(row, name) for name in ("created", "updated", "removed", "refused")}
    counts["held"] = row.held_count
    told = [f"{row.listed:,} listed", *(f"{count:,} {name}" for name, count in counts.items() if count)]
    running = [pages] if row.state == SyncRun.State.RUNNING else []
    return ", ".join([*running, *told, f"in {span((row.finished_at or at) - row.started_at)}"])


def _held() -> list[Context]:
    rows = SyncRun.objects.filter(state=SyncRun.State.HELD).order_by("-id")[:HELD_SHOWN]
    return [
        {
            "what": f"Run {row.pk} holds {row.held_count:,} removals back",
            "why": row.held_reason,
            "do": "Look, and approve",
            "url": reverse("admin:marketplace_sync_syncrun_change", args=(row.pk,)),
        }
        for row in rows
    ]


def _letters() -> list[Context]:
    letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN)
    newest = letters.order_by("-last_seen_at").defer("head").first()
    if newest is None:
        return []
    count = letters.count()
    return [
        {
            "what": "1 open dead letter" if count == 1 else f"{count:,} open dead letters",
            "why": f"The newest: {newest.reason}",
            "do": "Replay or discard",
            "url": f"{reverse('admin:marketplace_sync_deadletter_changelist')}?state__exact=open",
        }
    ]


def _sizes() -> Context:
    """The catalogue as it is: skills in all, and the categories with the most of them."""
    # Counted in the index by category alone; by `Category`, each of its columns would be grouped by.
    counts = Skill.objects.exclude(category=None).order_by().values_list("category").annotate(size=Count("pk"))
    largest = list(counts.order_by("-size", "category")[:CATEGORIES_SHOWN])
    names = dict(Category.objects.filter(pk__in=[pk for pk, _ in largest]).values_list("pk", "name"))
    most = max((size for _, size in largest), default=1)
    return {
        "skills": f"{Skill.objects.count():,}",
        "categories": f"{Category.objects.count():,}",
        "largest": [
            {
                "name": text(names[pk]),
                "size": f"{size:,}",
                "share": round(100 * size / most, 1),
                "url": reverse("admin:marketplace_sync_category_change", args=(pk,)),
            }
            for pk, size in largest
            if pk in names  # it may have gone between the two
        ],
    }
