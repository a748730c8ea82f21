"""What one actor may have at the same time, and what one request may cost."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from marketplace_sync.api import throttles
from marketplace_sync.api.throttles import MAX_CONCURRENT, ConcurrencyLimit, slots_of_actors
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.models import AuditRow, Command, Skill
from marketplace_sync.tests.database.test_api_control import server as server  # a fixture
from marketplace_sync.tests.database.test_api_control import until
from marketplace_sync.tests.support.api_actors import ApiClient, agent, new_key, person, put

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(100, 1000.0))
    yield
    assert slots_of_actors.occupied() == {}


@contextmanager
def busy(actor: str, requests: int) -> Iterator[None]:
    """So many requests of this actor are under way."""
    for _ in range(requests):
        assert slots_of_actors.acquire(actor)
    try:
        yield
    finally:
        for _ in range(requests):
            slots_of_actors.release(actor)


def test_fifth_concurrent_request_is_429_and_other_actors_are_served() -> None:
    client, other, ada = agent(Maturity.INTERN), agent(Maturity.STUDENT), person()
    with busy("agent:a-intern", MAX_CONCURRENT - 1):
        assert client.get("/api/skills/").status_code == 200
    with busy("agent:a-intern", MAX_CONCURRENT):
        for path in ("/api/skills/", "/api/changes/", "/api/nowhere/", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_at_once"), path
            assert answer["Retry-After"] == "1" and "At most 4 requests" in answer.json()["detail"]
        assert other.get("/api/skills/").status_code == ada.get("/api/skills/").status_code == 200
    assert client.get("/api/skills/").status_code == 200


def test_person_with_many_requests_can_still_use_the_admin() -> None:
    client = person("root", is_superuser=True, is_staff=True)
    with busy("user:root", MAX_CONCURRENT):
        assert client.get("/api/skills/").status_code == 429
        assert client.get("/admin/").status_code == 200


async def test_waiting_for_a_command_occupies_no_slot(server: str) -> None:
    await asyncio.to_thread(wait_beside, server)


def wait_beside(server: str) -> None:
    key = new_key("waiter", Maturity.AUTONOMOUS)[1]
    headers = {"Authorization": f"Bearer {key}"}
    statuses: list[int] = []

    def ask() -> None:
        with httpx2.Client(base_url=server, headers=headers, timeout=40) as http:
            statuses.append(http.post("/api/admin/sync/trigger/?wait=30").status_code)

    threads = [threading.Thread(target=ask) for _ in range(MAX_CONCURRENT + 1)]
    try:
        for thread in threads:
            thread.start()
        until(
            lambda: AuditRow.objects.filter(verb="sync").count() > MAX_CONCURRENT and slots_of_actors.occupied() == {},
            "all of them wait",
        )
        client = httpx2.Client(base_url=server, headers=headers, timeout=40)
        with busy("agent:waiter", MAX_CONCURRENT - 1), client as http:
            assert http.get("/api/skills/").status_code == 200
        assert statuses == []
    finally:
        Command.objects.update(state="done", finished_at=timezone.now())
        for thread in threads:
            thread.join(30)
        connections.close_all()
    assert statuses == [200] * (MAX_CONCURRENT + 1)


def test_waiting_does_not_raise_the_concurrency_limit() -> None:
    client, student = agent(), agent(Maturity.STUDENT)
    with busy("agent:a-autonomous", MAX_CONCURRENT), busy("agent:a-student", MAX_CONCURRENT):
        for asks in (client, student):
            for path in (
                "sync/trigger/?wait=1",
                "sync/trigger/",
                "sync/trigger/?wait=0",
                "dead-letters/1/discard/?wait=1",
            ):
                answer = asks.ask(f"/api/admin/{path}")
                assert (answer.status_code, answer.json()["code"]) == (429, "too_many_at_once"), path
        assert client.get("/api/admin/audit/?wait=1").status_code == 429
    assert not AuditRow.objects.filter(verb__in=("sync", "discard_dead_letter")).exists()


def test_number_of_requests_that_wait_for_a_slot_is_limited() -> None:
    places = ConcurrencyLimit(1, queue=2)
    assert places.acquire("a")
    got: list[bool] = []
    threads = [threading.Thread(target=lambda: got.append(places.acquire("a", 30))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: places.queued() == {"a": 2}, "two wait for a place")
    assert not places.acquire("a", 30)  # without waiting
    assert places.acquire("b")
    for _ in range(2):
        places.release("a")
        until(lambda: places.occupied().get("a") == 1, "the next has the place")
    for thread in threads:
        thread.join()
    places.release("a")
    places.release("b")
    assert (got, places.occupied(), places.queued()) == ([True, True], {}, {})


def test_every_end_of_a_request_releases_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    put("s1")
    client = agent()
    client.raise_request_exception = False
    for path in ("/api/skills/", "/api/skills/s1/", "/api/schema/", "/api/docs/", "/metrics", "/api/skills/absent/",
                 "/api/skills/?nonsense=1", "/api/nowhere/", "/api/changes/?after=9"):  # fmt: skip
        client.get(path)
        client.head(path)
        client.delete(path)
        assert slots_of_actors.occupied() == {}, path
    assert client.ask("/api/admin/sync/trigger/", {"reason": 7}).status_code == 400
    assert agent(Maturity.STUDENT).ask("/api/admin/sync/trigger/").status_code == 403
    with transaction.atomic():  # a fault of ours within the view, and one while the answer is written
        Skill.objects.filter(skill_id="s1").update(metadata={"x": 1})
        monkeypatch.setattr("marketplace_sync.api.rendering.Renderer.encoder_class", dict)
        assert client.get("/api/skills/").status_code == 500
    assert slots_of_actors.occupied() == {}


def test_answers_carry_rate_limit_headers() -> None:
    client = agent()
    left = []
    for _ in range(3):
        answer = client.get("/api/skills/")
        left.append(int(answer["RateLimit-Remaining"]))
        assert answer["RateLimit"] == f'"requests";r={left[-1]};t=1'
        assert answer["RateLimit-Limit"] == "100" and '"requests";q=100;w=1' in answer["RateLimit-Policy"]
    assert left == [99, 98, 97]
    for _ in range(97):
        client.head("/api/nowhere/")
    answer = client.get("/api/skills/")
    assert (answer.status_code, answer["RateLimit-Remaining"], answer.json()["code"]) == (429, "0", "throttled")
    assert "RateLimit" not in ApiClient("wrong").get("/api/skills/")


async def test_slow_requests_of_one_agent_leave_threads_for_others(postgres: None, server: str) -> None:
    await asyncio.to_thread(slow_requests, server)


def slow_requests(server: str) -> None:
    greedy, modest = (new_key(name, Maturity.STUDENT)[1] for name in ("greedy", "modest"))
    statuses: list[int] = []

    def ask(key: str, path: str) -> int:
        with httpx2.Client(base_url=server, headers={"Authorization": f"Bearer {key}"}, timeout=40) as http:
            return http.get(path).status_code

    threads = [threading.Thread(target=lambda: statuses.append(ask(greedy, "/api/skills/"))) for _ in range(20)]
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:  # reading skills takes as long as this lock lasts
                cursor.execute("LOCK TABLE marketplace_sync_skill IN ACCESS EXCLUSIVE MODE")
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 30
            while len(statuses) < 16:
                assert time.monotonic() < deadline, (statuses, slots_of_actors.occupied())
                time.sleep(0.01)
            assert slots_of_actors.occupied() == {"agent:greedy": MAX_CONCURRENT}
            assert ask(greedy, "/api/changes/") == 429
            assert ask(modest, "/api/changes/") == 200
        for thread in threads:
            thread.join(30)
    finally:
        connections.close_all()
    assert sorted(statuses) == [200] * MAX_CONCURRENT + [429] * 16


# A search.


@pytest.mark.parametrize(
    "text",
    [
        "one two three four five six seven eight",
        "e-mail",
        "x-ray",
        "v2",
        "42",
        "数据",
        "数",
        "の メール",
        "mail !",
        "& | mail",
        "",
    ],
)
def test_search_of_eight_short_words_is_answered(text: str) -> None:
    assert agent().get("/api/skills/", {"search": text}).status_code == 200


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("one two three four five six seven eight nine", "At most 8 words."),
        ("a-b-c-d-e-f-g-h-i", "At most 8 words."),
        ("a_b/c.d e,f;g:h|i", "At most 8 words."),
        ("a", "two letters or digits"), ("7", "two letters or digits"), ("mail a", "'a' has one"),
        ("c++", "'c' has one"),
        ("É mail", "'É' has one"),
        ("ж", "two letters or digits"), ("ａ", "two letters or digits"), ("x" * 201, "200 characters"),
    ],
)  # fmt: skip
def test_expensive_search_is_refused_with_advice(text: str, reason: str) -> None:
    answer = agent().get("/api/skills/", {"search": text})
    assert (answer.status_code, answer.json()["field"]) == (400, "search")
    assert reason in answer.json()["detail"]
    page = person("root", is_superuser=True, is_staff=True).get("/admin/marketplace_sync/skill/", {"q": text})
    assert page.status_code == 400 or "The search was not run." in page.content.decode()


def test_single_character_in_a_search_matches_whole_words() -> None:
    put("ray", name="X-ray viewer")
    put("xylo", name="Xylophone ray")
    found = agent().get("/api/skills/", {"search": "x-ray"}).json()["results"]
    assert [row["skill_id"] for row in found] == ["ray"]


@pytest.mark.parametrize("value", ["1e-999999999", "0." + "3" * 5000, "-0", "+4", "4e0"])
def test_number_with_many_digits_is_refused_quickly(value: str) -> None:
    begun = time.monotonic()
    assert agent().get("/api/skills/", {"min_rating": value}).status_code in (200, 400)
    assert time.monotonic() - begun < 5
