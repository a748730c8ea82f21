"""Who may do what: every endpoint of the router × every kind of actor, by the policy's own word."""

from collections.abc import Iterator

import pytest
from django.db.models import QuerySet
from django.urls import URLPattern, URLResolver
from django.utils import timezone

from marketplace_sync.api import authentication, throttles, urls
from marketplace_sync.governance.policy import Complexity, allows
from marketplace_sync.models import AuditRow, Category, Command, DeadLetter, Skill, SyncRun
from marketplace_sync.tests.support.api_actors import EVERYONE, ApiClient, Who, put

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quiet_counters() -> None:
    authentication.failed_keys.clear()
    throttles.requests_of_actors.clear()


def endpoints(patterns: list[URLPattern | URLResolver], prefix: str = "/api/") -> Iterator[tuple[str, str]]:
    """Return the method and route of everything in the API, without the catch-all path."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from endpoints(pattern.url_patterns, route)
            continue
        view = pattern.callback
        actions = getattr(view, "actions", None)
        if actions is None:
            if pattern.name is None:
                continue
            actions = {"get": "get"}
        yield from ((method.upper(), route) for method in actions if method != "head")


ENDPOINTS = sorted(set(endpoints(urls.urlpatterns)))


def complexity_of(route: str) -> Complexity:
    """Return what a route requires: reading the catalogue and the feed is LOW, /api/admin/ needs AUTONOMOUS."""
    return Complexity.CRITICAL if route.startswith("/api/admin/") else Complexity.LOW


def existing(route: str) -> str:
    """Return the route with the id of an object on which the action is possible."""
    now = timezone.now()
    put("s1", category="c1")
    if "skills/<" in route or "categories/<" in route:
        return route.replace("<marketplace_sync_anything:skill_id>", "s1").replace(
            "<marketplace_sync_anything:name>", "c1"
        )
    if "runs/<" in route:
        row = SyncRun.objects.create(reason="poll", state="held", held_count=3, started_at=now, finished_at=now).pk
    elif "dead-letters/<" in route:
        row = DeadLetter.objects.create(
            source="stream", code="missing", reason="required", head=b"{}", size=2, digest="d", first_seen_at=now,
            last_seen_at=now,
        ).pk  # fmt: skip
    elif "commands/<" in route:
        row = Command.objects.create(action="sync", requested_by="x", requested_at=now, expires_at=now).pk
    else:
        return route
    return route.replace("<int:pk>", str(row))


def test_matrix_covers_every_endpoint() -> None:
    assert {("GET", "/api/skills/"), ("POST", "/api/admin/websocket/reconnect/"), ("GET", "/api/changes/")} <= set(
        ENDPOINTS
    )
    assert len(ENDPOINTS) >= 22


@pytest.mark.parametrize("who", EVERYONE, ids=[who.name for who in EVERYONE])
def test_each_actor_may_do_what_the_policy_allows(who: Who) -> None:
    client = who.make()
    for method, route in ENDPOINTS:
        check(who, client, method, route)


def check(who: Who, client: ApiClient, method: str, route: str) -> None:
    for model in (Skill, Category, SyncRun, DeadLetter, Command):
        model.objects.all().delete()
    path = existing(route)
    before = decisions().count()
    body = {"reason": "trying"} | ({"held_count": 3} if path.endswith("/approve/") else {})
    response = client.get(path) if method == "GET" else client.ask(path, body)
    decided = list(decisions()[before:])
    person_alone = path.endswith("/approve/") and who.name == "AUTONOMOUS agent"
    context = (who.name, method, path, response.status_code, response.content[:300])
    if who.maturity is None:
        assert response.status_code == 401, context
        assert response["WWW-Authenticate"].startswith("Bearer"), context
        assert set(response.json()) == {"detail", "code"}, context
    elif person_alone:
        assert (response.status_code, response.json()["code"]) == (403, "person_required"), context
    elif not allows(who.maturity, complexity_of(route)):
        assert response.status_code == 403, context
        refusal = response.json()
        assert refusal.pop("detail")
        assert refusal == {"code": "maturity_required", "required": "AUTONOMOUS", "actual": str(who.maturity)}, context
    else:
        assert response.status_code in ((200,) if method == "GET" else (200, 202)), context
    # Exactly one row a decision: reads are none, and nobody is no actor.
    rows = 1 if method == "POST" and who.maturity is not None else 0
    assert len(decided) == rows, context
    if rows:
        assert decided[0].allowed == (allows(who.maturity, complexity_of(route)) and not person_alone), context
        assert (decided[0].reason, decided[0].origin) == ("trying", "api 127.0.0.1"), context
        assert Command.objects.exclude(requested_by="x").count() == (
            1 if decided[0].allowed and "discard" not in path else 0
        ), context


def decisions() -> QuerySet[AuditRow]:
    """Return the audit rows of management actions, with those that created the actors, without refused keys."""
    return AuditRow.objects.exclude(verb="use_key").order_by("id")
