"""Show the judgement of `monitoring` on the overview and on the WebSocket page."""

from typing import Any

from django.http import HttpRequest

from marketplace_sync.admin.formatting import TONES, badge, humanize, untrusted
from marketplace_sync.admin.sites import may_view
from marketplace_sync.models import SyncRun, WebSocketState
from marketplace_sync.monitoring.report import Report

# The model whose pages show the text of the marketplace that a check's detail quotes.
_DETAIL_OF = {"sync": SyncRun, "connection": WebSocketState}
# The consequences of a stopped daemon. They add nothing to the check of the daemon itself.
_CONSEQUENCES = {"connection", "token", "lag"}


def health(request: HttpRequest, report: Report) -> dict[str, Any]:
    """Return the health and its problems, the worst first, each with its cause and remedy.

    A detail is only for those who may see the page that it comes from.
    """
    failed = {name for name, _ in report.problems()}
    shown = [(name, check) for name, check in report.problems() if not ("daemon" in failed and name in _CONSEQUENCES)]
    return {
        "health": badge(str(report.status)),
        "health_tone": TONES[str(report.status)],
        # The meaning of a state is true only while the daemon and its stream are well.
        "show_meaning": not failed & {"database", "daemon", "connection"},
        "problems": [
            {
                "badge": badge(str(check.status), humanize(name)),
                "reason": check.reason,
                "do": check.do,
                "detail": untrusted(check.detail) if check.detail and may_view(request, _DETAIL_OF[name]) else "",
            }
            for name, check in shown
        ],
    }
