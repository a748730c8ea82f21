"""The simulated marketplace's routes, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from marketplace_sync.simulator import Marketplace, SimulatorServer


def skills(count: int) -> list[dict]:
    return [
        {"skill_id": f"s{number}", "name": f"Skill {number}", "category": "odd" if number % 2 else "even",
         "description": "Größe 数据" if number == 3 else "", "tags": ["email"] if number == 4 else []}
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture
def market() -> Marketplace:
    return Marketplace(skills(25), [{"name": "even", "skill_count": 13}, {"name": "odd", "skill_count": 12}])


@pytest.fixture
async def server(market: Marketplace) -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(market) as running:
        yield running


@pytest.fixture
async def api(server: SimulatorServer) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx2.AsyncClient(base_url=server.api_url, headers=headers, trust_env=False, verify=False) as client:
        yield client


async def test_pages_have_every_skill_once_and_the_totals(api):
    seen = []
    for page in (1, 2, 3):
        body = (await api.get("/api/v1/skills", params={"page": page, "page_size": 10})).json()
        assert {name: body[name] for name in body if name != "skills"} == {
            "page": page, "page_size": 10, "total": 25, "total_pages": 3,
        }  # fmt: skip
        seen += [skill["skill_id"] for skill in body["skills"]]
    assert sorted(seen) == sorted(f"s{number}" for number in range(25))
    assert (await api.get("/api/v1/skills?page=4&page_size=10")).json()["skills"] == []


async def test_page_has_100_skills_by_default_and_1000_at_most(server, api):
    for skill in skills(1_200):
        server.market.put_skill(skill)
    sizes = [len((await api.get(f"/api/v1/skills{query}")).json()["skills"]) for query in ("", "?page_size=5000")]
    assert sizes == [100, 1_000]


@pytest.mark.parametrize("query", ["page=0", "page=x", "page_size=0", "page_size=-1"])
async def test_an_impossible_page_is_a_bad_request(api, query):
    assert (await api.get(f"/api/v1/skills?{query}")).status_code == 400


@pytest.mark.parametrize(
    ("params", "count"),
    [({"query": "SKILL 1"}, 11), ({"query": "größe"}, 1), ({"query": "mail"}, 1), ({"category": "odd"}, 12),
     ({"category": "odd", "query": "skill 2"}, 2), ({"category": "none"}, 0)],
)  # fmt: skip
async def test_a_listing_can_be_searched(api, params, count):
    assert (await api.get("/api/v1/skills", params=params)).json()["total"] == count


async def test_single_skill_has_its_ratings(server, api):
    body = (await api.get("/api/v1/skills/s3")).json()
    assert body == {**server.market.skills["s3"], "ratings": []}
    assert (await api.get("/api/v1/skills/none")).status_code == 404


async def test_an_id_with_slashes_and_spaces_can_be_asked_for(server, api):
    server.market.put_skill({"skill_id": "a/b c", "name": "Path"})
    assert (await api.get("/api/v1/skills/a%2Fb%20c")).json()["name"] == "Path"


async def test_categories_are_complete(server, api):
    assert (await api.get("/api/v1/categories")).json() == {"categories": [*server.market.categories.values()]}


async def test_a_rating_is_counted_shown_and_refused_twice(server, api):
    vote = {"skill_id": "s3", "rating": 4, "comment": "Gut", "user_id": "ann"}
    body = (await api.post("/api/v1/ratings", json=vote)).json()
    assert body | {"rating_id": "", "created_at": ""} == {
        "success": True, "rating_id": "", "skill_id": "s3", "rating": 4, "average_rating": 4, "rating_count": 1,
        "created_at": "",
    }  # fmt: skip
    assert (await api.post("/api/v1/ratings", json=vote)).status_code == 409
    newer = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert (await api.post("/api/v1/ratings", json={**vote, "rating": 2, "timestamp": newer})).status_code == 200
    shown = (await api.get("/api/v1/skills/s3")).json()
    assert (shown["average_rating"], shown["rating_count"], len(shown["ratings"])) == (2, 1, 1)


@pytest.mark.parametrize(
    ("change", "status"),
    [({"rating": 0}, 400), ({"rating": 6}, 400), ({"rating": 4.5}, 400), ({"rating": True}, 400),
     ({"comment": "x" * 1_001}, 400), ({"user_id": ""}, 400), ({"skill_id": None}, 400), ({"skill_id": "none"}, 404)],
)  # fmt: skip
async def test_a_bad_rating_is_refused(api, change, status):
    vote = {"skill_id": "s3", "rating": 4, "user_id": "ann"} | change
    assert (await api.post("/api/v1/ratings", json=vote)).status_code == status
    assert (await api.get("/api/v1/skills/s3")).json().get("rating_count") is None


async def test_a_body_that_is_no_json_or_far_too_long_is_refused(api):
    assert (await api.post("/api/v1/ratings", content=b"{")).status_code == 400
    assert (await api.post("/api/v1/ratings", content=b" " * 100_000)).status_code == 413


async def test_health_needs_no_token(server):
    async with httpx2.AsyncClient(base_url=server.api_url, trust_env=False, verify=False) as client:
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic sim-token", "Bearer"])
async def test_a_bad_token_is_challenged(server, header):
    headers = {"Authorization": header} if header else {}
    async with httpx2.AsyncClient(base_url=server.api_url, headers=headers, trust_env=False, verify=False) as client:
        answer = await client.get("/api/v1/skills")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/api/v1/skills/", 404), ("PUT", "/api/v1/skills", 405), ("HEAD", "/health", 405),
     ("GET", "/api/v1/ratings", 405), ("GET", "/ws", 426)],
)  # fmt: skip
async def test_unknown_paths_and_methods_are_refused(api, method, path, status):
    assert (await api.request(method, path)).status_code == status


async def test_what_is_not_http_is_a_bad_request(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()


async def test_requests_over_the_limit_get_429_with_the_wait(market):
    clock = [1_000.0]
    async with SimulatorServer(market, requests_per_minute=3, monotonic=lambda: clock[0]) as server:
        headers = {"Authorization": "Bearer sim-token"}
        async with httpx2.AsyncClient(base_url=server.api_url, headers=headers, trust_env=False, verify=False) as api:
            statuses = [(await api.get("/api/v1/categories")).status_code for _ in range(3)]
            clock[0] += 20
            late = await api.get("/api/v1/categories")
            clock[0] += 40
            after = await api.get("/api/v1/categories")
    assert (statuses, late.status_code, late.headers["Retry-After"], after.status_code) == ([200] * 3, 429, "40", 200)
    assert [status for _, _, status in server.requests] == [200, 200, 200, 429, 200]


async def test_one_connection_serves_many_requests(server, api):
    for _ in range(5):
        await api.get("/api/v1/categories")
    assert server.accepted == 1
    assert server.requests == [("GET", "/api/v1/categories", 200)] * 5


async def test_clock_skew_affects_headers_and_times(server, api):
    server.clock_skew = timedelta(hours=1)
    ahead = datetime.now(UTC) + timedelta(minutes=59)
    dates = [(await api.get(path)).headers["Date"] for path in ("/health", "/api/v1/skills", "/nowhere")]
    async with connect(f"{server.ws_url}?token=sim-token", proxy=None) as stream:
        dates.append(stream.response.headers["Date"])
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws_url, proxy=None)
    dates.append(refused.value.response.headers["Date"])
    assert all(parsedate_to_datetime(date) > ahead for date in dates)
    assert datetime.fromisoformat(server.market.put_skill({"skill_id": "n", "name": "New"})["updated_at"]) > ahead


async def test_catalogue_can_change_between_two_pages(server, api):
    async def change(path: str) -> None:
        if "page=2" in path:
            server.market.put_skill({"skill_id": "late", "name": "Late"})

    server.on_request = change
    first = (await api.get("/api/v1/skills?page=1&page_size=20")).json()
    second = (await api.get("/api/v1/skills?page=2&page_size=20")).json()
    assert (first["total"], second["total"]) == (25, 26)
    assert first["skills"][-1] == second["skills"][0]
