"""Every answer of the API and the metrics, refusals included, forbids caches to store it for others."""

import pytest
from django.test import override_settings

from marketplace_sync.api import authentication, throttles
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.tests.support.api_actors import ApiClient, agent, person, put

pytestmark = pytest.mark.django_db(transaction=True)

CATALOGUE = ("/api/skills/", "/api/skills/?cursor=", "/api/skills/s1/", "/api/categories/", "/api/categories/c/")
OTHERS = (
    "/api/changes/", "/api/schema/", "/api/docs/", "/api/admin/websocket/status/", "/api/admin/sync/status/",
    "/api/admin/sync/runs/", "/api/admin/dead-letters/", "/api/admin/audit/", "/metrics",
)  # fmt: skip
REFUSED = (
    "/api/skills/absent/",
    "/api/skills/?nonsense=1",
    "/api/nowhere/",
    "/api/changes/?after=9",
    "/api/admin/commands/9/",
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "failed_keys", SlidingWindow(60, 60.0))
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))
    put("s1", category="c")


def kept(client: ApiClient, path: str, post: bool = False) -> tuple[int, set[str], set[str]]:
    """Status, the directives of Cache-Control, and the headers that Vary names."""
    answer = client.ask(path) if post else client.get(path)
    vary = {name.strip().lower() for name in answer.get("Vary", "").split(",")}
    return answer.status_code, {part.strip() for part in answer.get("Cache-Control", "").split(",")}, vary


@pytest.mark.parametrize("who", [agent, lambda: person(is_superuser=True)], ids=["agent", "person"])
def test_no_cache_may_store_an_answer(who: object) -> None:
    client = who()  # type: ignore[operator]
    for path in CATALOGUE:
        status, cache, vary = kept(client, path)
        assert (status, cache) == (200, {"private", "no-cache"}), path
        assert {"authorization", "cookie"} <= vary, path
    for path in OTHERS:
        status, cache, vary = kept(client, path)
        assert (status, cache) == (200, {"private", "no-store"}), path
        assert {"authorization", "cookie"} <= vary, path
    for path in REFUSED:
        status, cache, vary = kept(client, path)
        assert status >= 400 and cache == {"private", "no-store"}, path
        assert {"authorization", "cookie"} <= vary, path
    status, cache, vary = kept(client, "/api/admin/sync/trigger/", post=True)
    assert (status, cache) == (202, {"private", "no-store"}) and {"authorization", "cookie"} <= vary


def test_no_cache_may_store_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    for client, expected in ((ApiClient(), 401), (ApiClient("wrong"), 401), (agent(Maturity.STUDENT), 403)):
        path = "/api/admin/audit/" if expected == 403 else "/api/skills/"
        for asked in (path, "/metrics") if expected == 401 else (path,):
            status, cache, vary = kept(client, asked)
            assert (status, cache) == (expected, {"private", "no-store"}), asked
            assert {"authorization", "cookie"} <= vary
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(1, 1000.0))
    busy = agent(Maturity.INTERN)
    kept(busy, "/api/skills/")
    status, cache, vary = kept(busy, "/api/skills/")
    assert (status, cache) == (429, {"private", "no-store"}) and {"authorization", "cookie"} <= vary


@override_settings(ALLOWED_HOSTS=["mirror.example.com"])
def test_no_cache_may_store_an_answer_without_a_view() -> None:
    status, cache, vary = kept(ApiClient(), "/api/skills/")
    assert (status, cache) == (400, {"private", "no-store"}) and {"authorization", "cookie"} <= vary
