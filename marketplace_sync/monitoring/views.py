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
from marketplace_sync.monitoring.exposition import exposition
from marketplace_sync.monitoring.facts import read_facts
from marketplace_sync.monitoring.health import NO_DATABASE
from marketplace_sync.monitoring.judgement import configured, judgement
from marketplace_sync.monitoring.last_reported import LastReported
from marketplace_sync.monitoring.readiness import Readiness
from marketplace_sync.monitoring.report import Health, Report, healthy
from marketplace_sync.monitoring.short_cache import ReadTimeoutError, ShortCache

log = structlog.get_logger(__name__)

_ALIVE = Report({"process": healthy("The process answers.")})
_metrics_error = LastReported("")

facts = ShortCache(read_facts)
sync_health = ShortCache(lambda: judgement().report)
readiness = ShortCache(Readiness().check)


@non_atomic_requests  # otherwise an unreachable database would be a 500
@require_safe
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """Answer that this process runs. Nothing else is checked, because a restart would not repair a database."""
    return _response(_ALIVE)


@non_atomic_requests  # otherwise an unreachable database would be a 500
@require_safe
@never_cache
def ready(request: HttpRequest) -> HttpResponse:
    """Answer whether this process can serve requests."""
    return _checked(readiness)


@non_atomic_requests  # otherwise an unreachable database would be a 500
@require_safe
@never_cache
def sync(request: HttpRequest) -> HttpResponse:
    """Answer whether the mirror is correct and fresh."""
    return _checked(sync_health)


def _checked(report: ShortCache[Report]) -> HttpResponse:
    try:
        return _response(report())
    except ReadTimeoutError:
        return _response(NO_DATABASE)


def _response(report: Report) -> HttpResponse:
    status = HTTPStatus.SERVICE_UNAVAILABLE if report.status is Health.UNHEALTHY else HTTPStatus.OK
    answer = JsonResponse(report.as_json(), status=status)
    # Django would log an error for each 503. `judgement` logs one line when the answer changes.
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


@extend_schema(exclude=True)
class MetricsView(JSONView):
    """Serve the metrics to any agent's key and any login; to everybody with `METRICS_PUBLIC=true`."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if not configured().metrics_public:
            super().initial(request, *args, **kwargs)

    def get(self, request: Request) -> HttpResponseBase:
        try:
            text, status = exposition(facts()), HTTPStatus.OK
            _metrics_error.changes_to("")
        except (Error, ReadTimeoutError) as error:
            if _metrics_error.changes_to(type(error).__name__):
                log.warning("metrics_without_database", reason=" ".join(str(error).split()))
            text, status = "# The database does not answer.\n", HTTPStatus.SERVICE_UNAVAILABLE
        answer = HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4, status=status)
        answer._has_been_logged = True  # type: ignore[attr-defined]  # no error line per scrape
        return answer
