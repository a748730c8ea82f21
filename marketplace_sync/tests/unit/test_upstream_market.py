"""The HTTP client: what it sends, and what becomes of answers that are slow, large, broken or no answers at all."""

import asyncio
import contextlib
import gzip
import json
import threading
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from marketplace_sync.engine.rates import RequestBudget
from marketplace_sync.protocol.listing import decode_skill_page
from marketplace_sync.protocol.refusals import Code
from marketplace_sync.tests.support.upstream_peers import NOW, TOKEN, Script, ScriptedHttp, answer, config
from marketplace_sync.upstream import http as upstream_http
from marketplace_sync.upstream import market as upstream_market
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    RateLimitedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from marketplace_sync.upstream.market import LONGEST_WAIT, SKILL, SKILLS, MarketClient

PAGE = json.dumps({"skills": [{"skill_id": "s1", "name": "One"}], "page": 1, "total": 1}).encode()


class Clock:
    """A monotonic clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def client(server: ScriptedHttp, clock: Clock, budget: RequestBudget | None = None, **changes: Any) -> MarketClient:
    settings = config(api_url=server.url, **{"api_timeout": 5.0, **changes})
    return MarketClient(settings, budget=budget, clock=clock, wall=lambda: NOW, sleep=clock.sleep)


async def page_of(server: ScriptedHttp, clock: Clock | None = None, **changes: Any) -> Any:
    async with client(server, clock or Clock(), **changes) as market:
        return await market.skill_page(1, page_size=100)


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


async def test_a_path_in_the_api_url_is_kept() -> None:
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
async def test_an_id_reaches_the_server_as_it_is(skill_id: str, path: str) -> None:
    body = json.dumps({"skill_id": skill_id, "name": "N"}).encode()
    async with ScriptedHttp(answer(200, body)) as server, client(server, Clock()) as market:
        record = await market.skill(skill_id)
    assert server.asked[0].target == f"/api/v1/skills/{path}"
    assert record is not None


async def test_cookies_are_not_kept() -> None:
    async with ScriptedHttp(answer(200, PAGE, "Set-Cookie: a=b; Path=/")) as server, client(server, Clock()) as market:
        await market.skill_page(1, page_size=1)
        await market.skill_page(1, page_size=1)
    assert "cookie" not in server.asked[1].headers


async def test_begun_is_called_for_each_try_when_it_goes_out_and_not_before_the_budget_lets_it() -> None:
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
async def test_an_answer_that_will_not_change_is_not_asked_for_again(status: int) -> None:
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


async def test_another_skill_than_the_one_asked_for_is_malformed() -> None:
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
async def test_retry_after_is_waited_out_by_all_requests(status: int, as_date: bool) -> None:
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
async def test_a_retry_after_in_the_body_alone_is_waited_out(status: int, asked: str, header: tuple[str, ...]) -> None:
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
async def test_a_body_that_names_no_wait_gets_the_usual_one(body: bytes) -> None:
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
async def test_a_long_retry_after_is_told_at_once(status: int) -> None:
    clock = Clock()
    async with ScriptedHttp(answer(status, b"", f"Retry-After: {LONGEST_WAIT + 1:g}"), answer(200, PAGE)) as server:
        async with client(server, clock) as market:
            with pytest.raises(RateLimitedError) as caught:
                await market.skill_page(1, page_size=1)
            await market.skill_page(1, page_size=1)
    assert (caught.value.retry_after, clock.slept) == (LONGEST_WAIT + 1, [])


async def test_every_try_takes_from_the_shared_budget() -> None:
    clock, budget = Clock(), RequestBudget(5)
    async with ScriptedHttp(answer(500)) as server, client(server, clock, budget) as market:
        with pytest.raises(UpstreamServerError):
            await market.skill_page(1, page_size=1)
        assert market.budget is budget
    assert budget.left(clock.now) == 1


@pytest.mark.parametrize("last", [answer(200, PAGE), answer(401), answer(200, b"x" * 50, length=99)])
async def test_the_budget_gets_its_slot_back_whatever_becomes_of_the_request(last: bytes) -> None:
    clock, budget = Clock(), RequestBudget(9)
    async with ScriptedHttp(last) as server, client(server, clock, budget) as market:
        with contextlib.suppress(UpstreamError):
            await market.skill_page(1, page_size=1)
    assert budget.left(clock.now + 60.0) == 9


async def test_a_cancelled_request_gives_its_slot_back() -> None:
    clock, budget = Clock(), RequestBudget(9)
    async with ScriptedHttp(_never) as server, client(server, clock, budget) as market:
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

    async def held(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await gate.wait()
        open_now -= 1
        writer.write(answer(200, PAGE))

    async with ScriptedHttp(held) as server, client(server, Clock()) as market:
        pages = [asyncio.create_task(market.skill_page(n, page_size=1)) for n in range(1, 15)]
        async with asyncio.timeout(5):
            while open_now < 10:
                await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(*pages)
    assert most == 10


# Bodies.


async def _never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, b"{", length=1000))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)


async def _drip_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("script", [_never, _drip, _drip_headers])
async def test_an_answer_that_does_not_end_times_out(script: Script) -> None:
    async with ScriptedHttp(script) as server:
        with pytest.raises(UpstreamTimeoutError):
            await page_of(server, api_timeout=0.05)
    assert len(server.asked) == 4


async def test_a_gzip_body_is_unpacked() -> None:
    async with ScriptedHttp(answer(200, gzip.compress(PAGE), "Content-Encoding: gzip")) as server:
        assert (await page_of(server)).rows == 1


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKED: dict[str, tuple[str, bytes]] = {
    "two members": ("gzip", gzip.compress(PAGE[:20]) + gzip.compress(PAGE[20:])),
    "a member for each byte": ("gzip", b"".join(gzip.compress(bytes([byte])) for byte in PAGE)),
    "empty members around it": ("gzip", gzip.compress(b"") + gzip.compress(PAGE) + gzip.compress(b"")),
    "zeros after the end": ("gzip", gzip.compress(PAGE) + b"\0" * 1000),
    "members with zeros between": ("x-gzip", gzip.compress(PAGE[:20]) + b"\0" * 7 + gzip.compress(PAGE[20:]) + b"\0"),
    "deflate as zlib": ("deflate", zlib.compress(PAGE)),
    "bare deflate": ("deflate", _raw_deflate(PAGE)),
}


@pytest.mark.parametrize("pieces", [1, 7, 10**6])
@pytest.mark.parametrize("name", PACKED)
async def test_a_packed_body_is_read_in_every_form_and_cut(name: str, pieces: int) -> None:
    """`pieces`: bytes that are sent at once."""
    encoding, body = PACKED[name]

    async def in_pieces(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(200, b"", f"Content-Encoding: {encoding}", length=len(body)))
        for start in range(0, len(body), pieces):
            writer.write(body[start : start + pieces])
            await writer.drain()
            await asyncio.sleep(0)

    async with ScriptedHttp(in_pieces) as server:
        assert (await page_of(server)).rows == 1


async def test_a_gzip_bomb_is_not_inflated_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated, real = 0, zlib.decompressobj

    class Counting:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._real = real(*args, **kwargs)

        def decompress(self, data: bytes, most: int = 0) -> bytes:
            nonlocal inflated
            part = self._real.decompress(data, most)
            inflated += len(part)
            return part

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    bomb = gzip.compress(b"[" + b" " * 50_000_000)
    assert len(bomb) < 60_000
    async with ScriptedHttp(answer(200, bomb, "Content-Encoding: gzip")) as server:
        with pytest.raises(MalformedResponseError, match="larger than 1000000 bytes"):
            await page_of(server, max_body_bytes=1_000_000)
    assert inflated <= 4 * (1_000_000 + 2 * 262_144)


@pytest.mark.parametrize("size", [262_143, 262_144, 262_145, 524_288, 999_990])
async def test_a_packed_body_arrives_whole_at_every_size(size: int) -> None:
    body = PAGE + b" " * (size - len(PAGE))
    async with ScriptedHttp(answer(200, gzip.compress(body), "Content-Encoding: gzip")) as server:
        assert (await page_of(server, max_body_bytes=size)).rows == 1


async def test_a_body_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    async with ScriptedHttp(answer(200, PAGE)) as server:
        assert (await page_of(server, max_body_bytes=len(PAGE))).rows == 1
        with pytest.raises(MalformedResponseError, match="larger"):
            await page_of(server, max_body_bytes=len(PAGE) - 1)


HALF = PAGE[: len(PAGE) // 2]
MALFORMED: dict[str, bytes] = {
    "html": answer(200, b"<!DOCTYPE html><html></html>", "Content-Type: text/html"),
    "truncated JSON": answer(200, HALF),
    "truncated on the wire": answer(200, HALF, length=len(PAGE)),
    "truncated gzip": answer(200, gzip.compress(PAGE)[:-9], "Content-Encoding: gzip"),
    "damaged gzip": answer(200, b"\x1f\x8b" + b"\xff" * 40, "Content-Encoding: gzip"),
    "junk after two gzip members": answer(200, gzip.compress(PAGE) * 2 + b"x", "Content-Encoding: gzip"),
    "a second gzip member that breaks off": answer(
        200, gzip.compress(PAGE) + gzip.compress(b" ")[:12], "Content-Encoding: gzip"
    ),
    "a lone byte as deflate": answer(200, b"x", "Content-Encoding: deflate"),
    "junk after gzip": answer(200, gzip.compress(PAGE) + b"x" * 100, "Content-Encoding: gzip"),
    "an encoding we did not ask for": answer(200, PAGE, "Content-Encoding: br"),
    "empty": answer(200, b""),
    "no content": b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n",
    "an error instead": answer(200, b'{"error": "maintenance"}'),
    "deep": answer(200, b"[" * 100_000),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_listing_is_never_an_empty_one(name: str) -> None:
    async with ScriptedHttp(MALFORMED[name]) as server:
        with pytest.raises(MalformedResponseError):
            await page_of(server)
    assert len(server.asked) == 4


async def test_a_malformed_answer_carries_the_decoders_refusal() -> None:
    async with ScriptedHttp(answer(200, b"<html>")) as server:
        with pytest.raises(MalformedResponseError) as caught:
            await page_of(server)
    assert caught.value.refusal is not None
    assert caught.value.refusal.code is Code.NOT_JSON


@pytest.mark.parametrize("junk", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000])
async def test_what_is_no_http_is_unreachable(junk: bytes) -> None:
    async with ScriptedHttp(junk) as server:
        with pytest.raises(UnreachableError):
            await page_of(server)


async def test_a_refused_connection_is_said_in_the_systems_words() -> None:
    async with ScriptedHttp(answer(200)) as server:
        pass
    with pytest.raises(UnreachableError, match="refused"):
        await page_of(server)


async def test_times_are_believed_by_the_servers_clock() -> None:
    server_time = NOW + timedelta(days=400)
    body = json.dumps([{"skill_id": "s1", "name": "N", "updated_at": server_time.isoformat()}]).encode()
    async with ScriptedHttp(answer(200, body, f"Date: {format_datetime(server_time, usegmt=True)}")) as server:
        assert (await page_of(server)).skills[0].updated is not None
    async with ScriptedHttp(answer(200, body)) as server:
        assert (await page_of(server)).skills[0].updated is None


async def test_health_is_what_the_marketplace_says_of_itself() -> None:
    async with ScriptedHttp(answer(200, b'{"status": "healthy"}')) as server, client(server, Clock()) as market:
        assert await market.health() == {"status": "healthy"}
    async with ScriptedHttp(answer(200, b"[]")) as server, client(server, Clock()) as market:
        with pytest.raises(MalformedResponseError):
            await market.health()


async def test_a_body_that_takes_long_to_unpack_lets_others_work() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    body = gzip.compress(b"[]" + b" " * 8_000_000)
    async with ScriptedHttp(answer(200, body, "Content-Encoding: gzip")) as server:
        task = asyncio.create_task(others())
        await page_of(server)
        task.cancel()
    assert turns > 8_000_000 // 262_144


@pytest.mark.parametrize(
    ("body", "at_once"),
    [(PAGE, True), (b"[" + b",".join([b"{}"] * 100_000) + b"]", False), (b"[]" + b" " * 2_000_000, False)],
    ids=["documented", "many rows", "many bytes"],
)
async def test_a_body_that_takes_long_to_decode_lets_others_work(
    monkeypatch: pytest.MonkeyPatch, body: bytes, at_once: bool
) -> None:
    """A hundred thousand refused rows have 300 KB, and take a second."""
    decoded_in: list[threading.Thread] = []

    def decode(body: bytes, **how: Any) -> Any:
        decoded_in.append(threading.current_thread())
        return decode_skill_page(body, **how)

    monkeypatch.setattr(upstream_market, "decode_skill_page", decode)
    async with ScriptedHttp(answer(200, body)) as server:
        await page_of(server)
    assert (decoded_in == [threading.main_thread()]) is at_once
