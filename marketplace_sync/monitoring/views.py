"""`/health/live`, `/health/ready`, `/health/sync` and `/metrics`."""

from http import HTTPStatus
from typing import Any

import structlog
from django.db import Error
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.request import Request

from marketplace_sync.api.defaults import JSONView
from marketplace_sync.monitoring.briefly import Briefly, LookTimeoutError
from marketplace_sync.monitoring.exposition import exposition
from marketplace_sync.monitoring.facts import read_facts
from marketplace_sync.monitoring.health import NO_DATABASE
from marketplace_sync.monitoring.judgement import configured, judgement
from marketplace_sync.monitoring.last_said import LastReported
from marketplace_sync.monitoring.readiness import Readiness
from marketplace_sync.monitoring.report import Health, Report, healthy

log = structlog.get_logger(__name__)

_ALIVE = Report({"process": healthy("The process answers.")})
_metrics_said = LastReported("")

facts = Briefly(read_facts)
sync_health = Briefly(lambda: judgement().report)
readiness = Briefly(Readiness().look)


@non_atomic_requests  # else a database that is away would be a 500
@require_safe
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """This process answers. Nothing else is looked at: a restart would not mend a database."""
    return _told(_ALIVE)


@non_atomic_requests  # else a database that is away would be a 500
@require_safe
@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """This process can serve."""
    return _asked(readiness)


@non_atomic_requests  # else a database that is away would be a 500
@require_safe
@never_cache
def sync(request: HttpRequest) -> HttpResponse:
    """The mirror is right and fresh."""
    return _asked(sync_health)


def _asked(report: Briefly[Report]) -> HttpResponse:
    try:
        return _told(report())
    except LookTimeoutError:
        return _told(NO_DATABASE)


def _told(report: Report) -> HttpResponse:
    status = HTTPStatus.SERVICE_UNAVAILABLE if report.status is Health.UNHEALTHY else HTTPStatus.OK
    answer = JsonResponse(report.as_json(), status=status)
    # Django would log an error with each 503. `judgement` logs one line when the answer changes.
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


@extend_schema(exclude=True)
class MetricsView(JSONView):
    """Prometheus' text. Any agent's key, a login, or everybody with `METRICS_PUBLIC=true`."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if not configured().metrics_public:
            super().initial(request, *args, **kwargs)

    def get(self, request: Request) -> HttpResponseBase:
        try:
            text, status = exposition(facts()), HTTPStatus.OK
            _metrics_said.differs("")
        except (Error, LookTimeoutError) as fault:
            if _metrics_said.differs(type(fault).__name__):
                log.warning("metrics_without_database", reason=" ".join(str(fault).split()))
            text, status = "# The database does not answer.\n", HTTPStatus.SERVICE_UNAVAILABLE
        answer = HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4, status=status)
        answer._has_been_logged = True  # type: ignore[attr-defined]  # not an error per scrape
        return answer
