"""The judgement of `monitoring`, as the overview and the WebSocket page show it."""

from typing import Any

from django.http import HttpRequest

from marketplace_sync.admin.present import TONES, badge, text, words
from marketplace_sync.admin.sites import may_view
from marketplace_sync.models import SyncRun, WebSocketState
from marketplace_sync.monitoring.report import Report

# Whose page shows the words of the marketplace that a check's detail quotes.
_DETAIL_OF = {"sync": SyncRun, "connection": WebSocketState}
# Checks that follow from a daemon that is not there, and say nothing more.
_FOLLOW = {"connection", "token", "lag"}


def health(request: HttpRequest, report: Report) -> dict[str, Any]:
    """Return the worst check first, with its cause and what to do; details for those who may see their source."""
    broken = {name for name, _ in report.problems()}
    shown = [(name, check) for name, check in report.problems() if not ("daemon" in broken and name in _FOLLOW)]
    return {
        "health": badge(str(report.status)),
        "health_tone": TONES[str(report.status)],
        # Where the daemon and its stream are well, the state's own words are true.
        "state_speaks": not broken & {"database", "daemon", "connection"},
        "troubles": [
            {
                "badge": badge(str(check.status), words(name)),
                "reason": check.reason,
                "do": check.do,
                "detail": text(check.detail) if check.detail and may_view(request, _DETAIL_OF[name]) else "",
            }
            for name, check in shown
        ],
    }
