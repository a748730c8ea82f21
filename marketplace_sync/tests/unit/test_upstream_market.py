"""The HTTP client: its requests, their tries, `Retry-After` and the request budget."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from marketplace_sync.engine.rates import RequestBudget
from marketplace_sync.tests.support.upstream_clients import PAGE, Clock, client, never, page_of
from marketplace_sync.tests.support.upstream_peers import NOW, TOKEN, ScriptedHttp, answer, config
from marketplace_sync.upstream import http as upstream_http
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    RateLimitedError,
    TokenRefusedError,
    UpstreamError,
    UpstreamServerError,
)
from marketplace_sync.upstream.market import LONGEST_WAIT, SKILL, SKILLS, MarketClient

# What is sent.


async def test_a_request_carries_the_token_in_a_header_and_the_page_in_the_query() -> None:
    async with ScriptedHttp(answer(200, PAGE)) as server, client(server, Clock()) as market:
        page = await market.skill_page(3, page_size=50)
    (asked,) = server.asked
    assert page.skills[0].skill_id == "s1"
    assert (asked.method, asked.target) == ("GET", "/api/v1/skills?page=3&page_size=50")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["user-agent"].startswith("marketplace-mirror/")
    assert asked.headers["accept-encoding"] == "gzip"


async def test_a_path_in_the_api_url_is_used() -> None:
    async with ScriptedHttp(answer(200, b'{"categories": []}')) as server:
        async with MarketClient(config(api_url=f"{server.url}/atom/")) as market:
            assert (await market.categories()).categories == ()
    assert server.asked[0].target == "/atom/api/v1/categories"


@pytest.mark.parametrize(
    ("skill_id", "path"),
    [
        ("a/b?c#d%20é", "a%2Fb%3Fc%23d%2520%C3%A9"),
        ("%2F", "%252F"),
        ("a b+c&d=e;f:g@h", "a%20b%2Bc%26d%3De%3Bf%3Ag%40h"),
        ("../health", "..%2Fhealth"),
        ("{skill_id}", "%7Bskill_id%7D"),
        ("line\nfeed\\", "line%0Afeed%5C"),
    ],
)
async def test_an_id_reaches_the_server_unchanged(skill_id: str, path: str) -> None:
    body = json.dumps({"skill_id": skill_id, "name": "N"}).encode()
    async with ScriptedHttp(answer(200, body)) as server, client(server, Clock()) as market:
        record = await market.skill(skill_id)
    assert server.asked[0].target == f"/api/v1/skills/{path}"
    assert record is not None


async def test_cookies_are_not_stored() -> None:
    async with ScriptedHttp(answer(200, PAGE, "Set-Cookie: a=b; Path=/")) as server, client(server, Clock()) as market:
        await market.skill_page(1, page_size=1)
        await market.skill_page(1, page_size=1)
    assert "cookie" not in server.asked[1].headers


async def test_begun_is_called_for_each_try_when_it_is_sent_and_the_budget_allows_it() -> None:
    clock, begun = Clock(), list[float]()
    budget = RequestBudget(1)
    async with ScriptedHttp(answer(500), answer(200, PAGE)) as server, client(server, clock, budget) as market:
        await market.skill_page(1, page_size=1, begun=lambda: begun.append(clock.now))
    assert begun == [1000.0, 1060.0]


# Tries.


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_server_is_tried_four_times(status: int) -> None:
    clock = Clock()
    async with ScriptedHttp(answer(status)) as server:
        with pytest.raises((UpstreamServerError, RateLimitedError), match=str(status)):
            await page_of(server, clock)
    assert len(server.asked) == 4
    assert clock.slept == [0.5, 1.0, 2.0]


async def test_a_try_that_succeeds_ends_the_tries() -> None:
    async with ScriptedHttp(answer(503), answer(200, b"not json"), answer(200, PAGE)) as server:
        clock = Clock()
        async with client(server, clock) as market:
            assert (await market.skill_page(1, page_size=1)).rows == 1
            assert market.requests == {(SKILLS, "503"): 1, (SKILLS, "200"): 2}
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 404, 410, 501])
async def test_an_answer_that_will_not_change_is_not_requested_again(status: int) -> None:
    async with ScriptedHttp(answer(status)) as server:
        with pytest.raises(UpstreamServerError) as caught:
            await page_of(server)
    assert (caught.value.status, len(server.asked)) == (status, 1)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_not_tried_again(status: int) -> None:
    async with ScriptedHttp(answer(status, b"", "WWW-Authenticate: Bearer")) as server:
        with pytest.raises(TokenRefusedError) as caught:
            await page_of(server)
    assert caught.value.refused_token
    assert len(server.asked) == 1


async def test_a_missing_skill_is_none_and_one_fetch() -> None:
    async with ScriptedHttp(answer(404, b"<html>")) as server, client(server, Clock()) as market:
        assert await market.skill("gone") is None
        assert market.requests == {(SKILL, "404"): 1}


async def test_another_skill_than_the_requested_one_is_malformed() -> None:
    body = json.dumps({"skill_id": "s2", "name": "Two"}).encode()
    async with ScriptedHttp(answer(200, body)) as server, client(server, Clock()) as market:
        with pytest.raises(MalformedResponseError, match="s2"):
            await market.skill("s1")
    assert len(server.asked) == 4


async def test_a_redirect_is_not_followed() -> None:
    async with ScriptedHttp(answer(200, PAGE)) as thief:
        async with ScriptedHttp(answer(302, b"", f"Location: {thief.url}/api/v1/skills")) as server:
            with pytest.raises(UpstreamServerError, match="302") as caught:
                await page_of(server)
    assert (caught.value.status, len(server.asked), thief.asked) == (302, 1, [])


async def test_a_redirect_to_nowhere_is_one_too() -> None:
    async with ScriptedHttp(answer(302, b"", "Location: http://[")) as server:
        with pytest.raises(UpstreamServerError, match="302"):
            await page_of(server)


# Retry-After and the budget.


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
async def test_all_requests_wait_for_a_retry_after(status: int, as_date: bool) -> None:
    server_time = datetime(2031, 5, 5, tzinfo=UTC)
    until = format_datetime(server_time + timedelta(seconds=40), usegmt=True) if as_date else "40"
    slow = answer(status, b"{}", f"Retry-After: {until}", f"Date: {format_datetime(server_time, usegmt=True)}")
    clock, begun = Clock(), dict[str, float]()
    async with ScriptedHttp(slow, answer(200, PAGE)) as server, client(server, clock) as market:
        first = asyncio.create_task(market.skill_page(1, page_size=1, begun=lambda: begun.update(first=clock.now)))
        while not clock.slept:
            await asyncio.sleep(0)
        await market.skill_page(2, page_size=1, begun=lambda: begun.update(second=clock.now))
        await first
    assert min(begun.values()) >= 1040.0


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "asked", ["40", '"40"', "40.0", f'"{format_datetime(NOW + timedelta(seconds=40), usegmt=True)}"']
)
@pytest.mark.parametrize("header", [(), ("Retry-After: soon",)])
async def test_requests_wait_for_a_retry_after_in_the_body(status: int, asked: str, header: tuple[str, ...]) -> None:
    slow = answer(status, f'{{"error": "slow down", "retry_after": {asked}}}'.encode(), *header)
    clock = Clock()
    async with ScriptedHttp(slow, answer(200, PAGE)) as server, client(server, clock) as market:
        await market.skill_page(1, page_size=1)
    assert clock.now == 1040.0


async def test_the_header_wins_over_the_body() -> None:
    slow = answer(429, b'{"retry_after": 40}', "Retry-After: 3")
    clock = Clock()
    async with ScriptedHttp(slow, answer(200, PAGE)) as server, client(server, clock) as market:
        await market.skill_page(1, page_size=1)
    assert clock.now == 1003.0


@pytest.mark.parametrize(
    "body",
    [
        b"", b"slow down", b"[1]", b'{"retry_after": null}', b'{"retry_after": true}', b'{"retry_after": -1}',
        b'{"retry_after": "-1"}', b'{"retry_after": 1e300}', b'{"retry_after": 99999999999}', b'{"retry_after": [5]}',
        b'{"retry_after": NaN}', b'{"retry_after": ' + b"9" * 5000 + b"}", b"[" * 5000, b" " * 20_000,
    ],
)  # fmt: skip
async def test_without_a_wait_in_the_body_the_usual_delay_counts(body: bytes) -> None:
    clock = Clock()
    async with ScriptedHttp(answer(429, body), answer(200, PAGE)) as server, client(server, clock) as market:
        await market.skill_page(1, page_size=1)
    assert clock.slept == [0.5]


async def test_an_absurd_wait_in_the_body_ends_the_tries() -> None:
    clock = Clock()
    async with ScriptedHttp(answer(503, b'{"retry_after": 999999999}')) as server, client(server, clock) as market:
        with pytest.raises(RateLimitedError) as caught:
            await market.skill_page(1, page_size=1)
    assert (caught.value.retry_after, len(server.asked)) == (999_999_999, 1)


async def test_the_body_of_a_refusal_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_http, "ERROR_BODY_SECONDS", 0.05)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(429, b'{"retry_after": 40', length=1000))
        await writer.drain()
        await reader.read()

    clock = Clock()
    async with ScriptedHttp(slow, answer(200, PAGE)) as server, client(server, clock) as market:
        await market.skill_page(1, page_size=1)
    assert clock.slept == [0.5]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_long_retry_after_raises_without_waiting(status: int) -> None:
    clock = Clock()
    async with ScriptedHttp(answer(status, b"", f"Retry-After: {LONGEST_WAIT + 1:g}"), answer(200, PAGE)) as server:
        async with client(server, clock) as market:
            with pytest.raises(RateLimitedError) as caught:
                await market.skill_page(1, page_size=1)
            await market.skill_page(1, page_size=1)
    assert (caught.value.retry_after, clock.slept) == (LONGEST_WAIT + 1, [])


async def test_every_try_takes_a_slot_of_the_shared_budget() -> None:
    clock, budget = Clock(), RequestBudget(5)
    async with ScriptedHttp(answer(500)) as server, client(server, clock, budget) as market:
        with pytest.raises(UpstreamServerError):
            await market.skill_page(1, page_size=1)
        assert market.budget is budget
    assert budget.left(clock.now) == 1


@pytest.mark.parametrize("last", [answer(200, PAGE), answer(401), answer(200, b"x" * 50, length=99)])
async def test_a_request_returns_its_slot_however_it_ends(last: bytes) -> None:
    clock, budget = Clock(), RequestBudget(9)
    async with ScriptedHttp(last) as server, client(server, clock, budget) as market:
        with contextlib.suppress(UpstreamError):
            await market.skill_page(1, page_size=1)
    assert budget.left(clock.now + 60.0) == 9


async def test_a_cancelled_request_returns_its_slot() -> None:
    clock, budget = Clock(), RequestBudget(9)
    async with ScriptedHttp(never) as server, client(server, clock, budget) as market:
        task = asyncio.create_task(market.skill_page(1, page_size=1))
        while not server.asked:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert budget.left(clock.now + 60.0) == 9


async def test_single_fetches_wait_for_their_share_while_pages_go_on() -> None:
    clock, budget = Clock(), RequestBudget(100, single_fetch_share=1)
    body = json.dumps({"skill_id": "s1", "name": "One"}).encode()
    async with ScriptedHttp(answer(200, body), answer(200, PAGE)) as server, client(server, clock, budget) as market:
        assert market.single_fetch_wait() == 0.0
        assert market.single_fetch_wait() == 0.0  # to ask is not to take
        await market.skill("s1")
        assert market.single_fetch_wait() == 60.0
        await market.skill_page(1, page_size=1)
    assert clock.slept == []


async def test_at_most_ten_connections_are_open() -> None:
    open_now, most, gate = 0, 0, asyncio.Event()

    async def delayed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await gate.wait()
        open_now -= 1
        writer.write(answer(200, PAGE))

    async with ScriptedHttp(delayed) as server, client(server, Clock()) as market:
        pages = [asyncio.create_task(market.skill_page(n, page_size=1)) for n in range(1, 15)]
        async with asyncio.timeout(5):
            while open_now < 10:
                await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*pages)
    assert most == 10
