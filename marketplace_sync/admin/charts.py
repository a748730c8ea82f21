"""The figures of the last 24 hours for the overview's charts: one column per figure, one row per minute."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.http import HttpRequest, HttpResponse, JsonResponse

from marketplace_sync.admin.filters import parse_id
from marketplace_sync.admin.sites import may_view
from marketplace_sync.engine.latency import quantile
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.figures import KEPT_MINUTES, lags_of, minute_of
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.models import MinuteFigures, Skill, WebSocketState

# The first are for every staff account, the second for those who may see the WebSocket page.
_CATALOGUE = ("skills", "categories")
_MANAGEMENT = (*TOTALS, "lag_p50", "lag_p99", "open_dead_letters")
# The overview's lag is that of so many minutes.
LAG_MINUTES = 10


def figures(request: HttpRequest) -> HttpResponse:
    """Return `{"at": [...], "received": [...], ...}`: `at` in seconds since 1970, counts per minute, lags in seconds.

    With `?after=` only the minutes from that one on. The newest minute is not over, so a client asks for it again.
    """
    if not may_view(request, Skill):
        return HttpResponse(status=403)
    names = _CATALOGUE + (_MANAGEMENT if may_view(request, WebSocketState) else ())
    now = database_now()
    since = now - timedelta(minutes=KEPT_MINUTES)
    after = parse_id(request.GET.get("after", ""))
    if 0 <= after < 253_402_300_800:  # the year 10,000, beyond Python's dates
        since = max(since, datetime.fromtimestamp(after, UTC))
    rows = list(MinuteFigures.objects.filter(at__gte=since, at__lte=now).order_by("at").values_list("at", *names))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names, 1)}
    answer = JsonResponse({"at": [int(row[0].timestamp()) for row in rows], **columns})
    answer["Cache-Control"] = "no-store"
    return answer


@dataclass(frozen=True, slots=True)
class RecentFigures:
    """The figures of the last minutes.

    `rates` are messages per second by the name of their total, over one to two minutes. Lags are in seconds, over ten
    minutes; `None` without a message.
    """

    rates: Mapping[str, float]
    lag_p50: float | None
    lag_p99: float | None


def recent_figures(now: datetime) -> RecentFigures:
    """Return the rates and lags of the minutes before `now`."""
    minute = minute_of(now)
    rows = list(MinuteFigures.objects.filter(at__gt=minute - timedelta(minutes=LAG_MINUTES), at__lte=now))
    lags = lags_of(*rows)
    newest = [row for row in rows if row.at >= minute - timedelta(minutes=1)]
    seconds = (now - newest[0].at).total_seconds() if newest else 0.0
    rates = {name: sum(getattr(row, name) for row in newest) / seconds if seconds else 0.0 for name in TOTALS}
    return RecentFigures(rates, quantile(lags, 0.5), quantile(lags, 0.99))
