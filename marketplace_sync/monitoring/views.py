"""`/health/live`, `/health/ready`, `/health/sync` and `/metrics`."""

from http import HTTPStatus
from typing import Any

import structlog
from django.conf import settings
from django.db import Error
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from rest_framework.request import Request

from marketplace_sync.api.defaults import JSONView
from marketplace_sync.conf import ConfigError, SyncConfig, load_config
from marketplace_sync.monitoring.briefly import Briefly, NoAnswer
from marketplace_sync.monitoring.exposition import exposition
from marketplace_sync.monitoring.facts import read_facts
from marketplace_sync.monitoring.health import NO_DATABASE, Health, Report, healthy, judge
from marketplace_sync.monitoring.readiness import Readiness

log = structlog.get_logger(__name__)

_ALIVE = Report({"process": healthy("The process answers.")})


def _config() -> SyncConfig:
    try:
        return load_config(settings)
    except ConfigError:  # `manage.py check` says what is wrong with them
        return SyncConfig()


def _sync_health() -> Report:
    try:
        return judge(read_facts(), _config())
    except Error as fault:
        log.warning("health_without_database", reason=" ".join(str(fault).split()))
        return NO_DATABASE


facts = Briefly(read_facts)
sync_health = Briefly(_sync_health)
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
    except NoAnswer:
        return _told(NO_DATABASE)


def _told(report: Report) -> HttpResponse:
    status = HTTPStatus.SERVICE_UNAVAILABLE if report.status is Health.UNHEALTHY else HTTPStatus.OK
    return JsonResponse(report.as_json(), status=status)


@extend_schema(exclude=True)
class MetricsView(JSONView):
    """Prometheus' text. Any agent's key, a login, or everybody with `METRICS_PUBLIC=true`."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if not _config().metrics_public:
            super().initial(request, *args, **kwargs)

    def get(self, request: Request) -> HttpResponseBase:
        try:
            text, status = exposition(facts()), HTTPStatus.OK
        except (Error, NoAnswer) as fault:
            log.warning("metrics_without_database", reason=" ".join(str(fault).split()))
            text, status = "# The database does not answer.\n", HTTPStatus.SERVICE_UNAVAILABLE
        return HttpResponse(text, content_type=CONTENT_TYPE_PLAIN_0_0_4, status=status)
