"""Every fault of the simulator does on the wire what it describes. A fault without a test here fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from marketplace_sync.simulator import FAULTS, Marketplace, SimulatorServer
from marketplace_sync.simulator.malformed import PAYLOADS

MIB = 2**20
HANDSHAKE = (
    b"GET /ws?token=sim-token HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Bench:
    """A simulator of 100 skills, an HTTP client and streams against it."""

    def __init__(self, server: SimulatorServer, api: httpx2.AsyncClient) -> None:
        self.server = server
        self.market = server.market
        self.faults = server.faults
        self.api = api

    def stream(self, **options) -> connect:
        return connect(f"{self.server.ws_url}?token={self.server.token}", proxy=None, max_size=None, **options)

    async def opened(self) -> None:
        await self.server.until(lambda: self.server.clients)

    def change(self, number: int) -> None:
        self.market.put_skill({"skill_id": "s0", "name": "Zero", "version": str(number)})

    async def listed(self, page_size: int = 20, pages: int = 5) -> list[dict]:
        answers = [await self.api.get(f"/api/v1/skills?page={page + 1}&page_size={page_size}") for page in range(pages)]
        return [answer.json() for answer in answers]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    market = Marketplace(
        [{"skill_id": f"s{number}", "name": f"Skill {number}", "average_rating": 4.0} for number in range(100)],
        [{"name": "c"}],
    )
    async with SimulatorServer(market, connects_per_minute=0) as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        async with httpx2.AsyncClient(base_url=server.api_url, headers=headers, trust_env=False, verify=False) as api:
            yield Bench(server, api)


async def hear(stream: ClientConnection) -> dict:
    async with asyncio.timeout(5):
        return json.loads(await stream.recv())


async def versions(bench: Bench, stream: ClientConnection, count: int) -> list[str]:
    return [(await hear(stream))["data"]["version"] for _ in range(count)]


async def closing_code(bench: Bench) -> int | None:
    async with bench.stream() as stream:
        with pytest.raises(ConnectionClosed) as closed:
            await hear(stream)
        return closed.value.rcvd.code if closed.value.rcvd else None


async def handshake_refusal(bench: Bench):
    with pytest.raises(InvalidStatus) as refused:
        await bench.stream()
    return refused.value.response


async def status(bench: Bench, path: str = "/api/v1/skills") -> int:
    return (await bench.api.get(path)).status_code


async def refuse(bench: Bench) -> None:
    bench.faults.add("refuse", times=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
    writer.write(HANDSHAKE)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    assert await status(bench) == 200
    async with bench.stream():
        assert len(bench.server.connects) == 2


async def accept_then_close(bench: Bench) -> None:
    bench.faults.add("accept-then-close")
    assert [await closing_code(bench) for _ in range(3)] == [1000] * 3
    assert bench.server.clients == 0


async def slow_handshake(bench: Bench) -> None:
    bench.faults.add("slow-handshake", times=1)
    with pytest.raises(TimeoutError):
        await bench.stream(open_timeout=0.1)
    bench.faults.add("slow-handshake", times=1, seconds=0.05)
    async with bench.stream():
        assert "slow-handshake" not in bench.faults


async def forbidden(bench: Bench) -> None:
    bench.faults.add("forbidden")
    assert (await handshake_refusal(bench)).status_code == 403
    assert await status(bench) == 200


async def ws_429(bench: Bench) -> None:
    bench.faults.add("ws-429", retry_after=7)
    response = await handshake_refusal(bench)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert await status(bench) == 200


async def close_4401(bench: Bench) -> None:
    bench.faults.add("close-4401")
    assert await closing_code(bench) == 4401


async def close_1008(bench: Bench) -> None:
    bench.faults.add("close-1008")
    assert await closing_code(bench) == 1008


async def mute(bench: Bench) -> None:
    async with bench.stream(ping_interval=None, close_timeout=0.05) as stream:
        await bench.opened()
        bench.faults.add("mute")
        bench.change(1)
        bench.server.send_raw("psst")
        await stream.send('{"type":"ping"}')
        pong = await stream.ping()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await stream.recv()
        assert not pong.done()
        assert bench.server.clients == 1
        # What was not sent is not sent later; the stream itself works again.
        bench.faults.remove("mute")
        bench.change(2)
        assert await versions(bench, stream, 1) == ["2"]


async def mute_for_one_stream(bench: Bench) -> None:
    bench.faults.add("mute", times=1)
    async with bench.stream(close_timeout=0.05) as first, bench.stream() as second:
        await bench.server.until(lambda: bench.server.clients == 2)
        bench.change(1)
        assert await versions(bench, second, 1) == ["1"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await first.recv()


async def dropped_event(bench: Bench) -> None:
    bench.faults.add("dropped-event", times=1, match="skill_update")
    async with bench.stream() as stream:
        await bench.opened()
        for number in range(3):
            bench.change(number)
        assert await versions(bench, stream, 2) == ["1", "2"]
        assert bench.market.skills["s0"]["version"] == "2"


async def duplicate(bench: Bench) -> None:
    bench.faults.add("duplicate")
    async with bench.stream() as stream:
        await bench.opened()
        bench.change(0)
        bench.change(1)
        assert await versions(bench, stream, 4) == ["0", "0", "1", "1"]


async def reorder(bench: Bench) -> None:
    bench.faults.add("reorder", linger=0.05)
    async with bench.stream() as stream:
        await bench.opened()
        for number in range(5):
            bench.change(number)
        assert await versions(bench, stream, 5) == ["1", "0", "3", "2", "4"]


async def oversize(bench: Bench) -> None:
    bench.faults.add("oversize", times=1)
    assert MIB < await largest(bench) < 4 * MIB


async def oversize_hard(bench: Bench) -> None:
    bench.faults.add("oversize-hard", times=1)
    assert await largest(bench) > 4 * MIB


async def largest(bench: Bench) -> int:
    async with bench.stream() as stream:
        await bench.opened()
        bench.market.rate("s1", 4)
        bench.change(1)
        bench.change(2)
        sizes = [len(await stream.recv(decode=False)) for _ in range(3)]
        assert max(sizes[0], sizes[2]) < 300
        assert bench.market.skills["s0"].keys() <= {"skill_id", "name", "version", "average_rating", "updated_at"}
        return sizes[1]


async def malformed(bench: Bench) -> None:
    bench.faults.add("malformed", seed=5)
    async with bench.stream() as stream:
        await bench.opened()
        before = bench.market.snapshot()
        for number in range(len(PAYLOADS)):
            bench.change(number)
        received = [await stream.recv(decode=False) for _ in range(2 * len(PAYLOADS) + 1)]
    events = [json.loads(payload)["data"]["version"] for payload in received[2::2]]
    assert events == [str(number) for number in range(len(PAYLOADS))]
    bad = {received[0], *received[1::2]}
    # Two of a round repeat a skill as it is; all others are the listed ones, each once.
    assert len(bad & {payload for payload, _ in PAYLOADS}) >= len(PAYLOADS) - 1
    assert before.skills.keys() == bench.market.skills.keys()


async def broken_frame(bench: Bench) -> None:
    bench.faults.add("broken-frame", times=1)
    async with bench.stream() as stream:
        with pytest.raises(ConnectionClosedError, match="reserved bits"):
            await hear(stream)
    async with bench.stream() as stream:
        await bench.opened()
        bench.change(1)
        assert await versions(bench, stream, 1) == ["1"]


async def flood(bench: Bench) -> None:
    bench.faults.add("flood", times=1, count=1_000)
    async with bench.stream() as stream:
        news = [await hear(stream) for _ in range(1_000)]
    versions = {message["data"]["skill_id"]: message["data"]["version"] for message in news}
    assert versions == {key: skill["version"] for key, skill in bench.market.skills.items()}
    assert FAULTS["flood"].params["count"] == 20_000


async def unauthorized(bench: Bench) -> None:
    bench.faults.add("unauthorized")
    answers = [await bench.api.get(path) for path in ("/health", "/api/v1/skills", "/api/v1/categories")]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert all("WWW-Authenticate" in answer.headers for answer in answers)
    assert (await handshake_refusal(bench)).status_code == 401


async def http_away(bench: Bench) -> None:
    bench.faults.add("http-away", times=1)
    with pytest.raises(httpx2.TransportError):
        await bench.api.get("/health")
    assert await status(bench) == 200
    assert [entry[2] for entry in bench.server.requests] == [0, 200]


async def http_429(bench: Bench) -> None:
    bench.faults.add("http-429", times=1, retry_after=9)
    answer = await bench.api.get("/api/v1/skills")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "9")
    bench.faults.add("http-429", times=1, retry_after=60, http_date=True)
    at = parsedate_to_datetime((await bench.api.get("/api/v1/skills")).headers["Retry-After"])
    assert abs(at - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=5)
    assert await status(bench) == 200


async def http_500(bench: Bench) -> None:
    bench.faults.add("http-500", times=1, match="page=2")
    assert [await status(bench, f"/api/v1/skills?page={page}") for page in (1, 2, 2)] == [200, 500, 200]


async def http_503(bench: Bench) -> None:
    bench.faults.add("http-503")
    assert [await status(bench, path) for path in ("/health", "/api/v1/categories")] == [503, 503]
    async with bench.stream():
        await bench.opened()


async def redirect(bench: Bench) -> None:
    bench.faults.add("redirect")
    answer = await bench.api.get("/api/v1/skills")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login")


async def html_200(bench: Bench) -> None:
    bench.faults.add("html-200")
    answer = await bench.api.get("/api/v1/skills")
    assert (answer.status_code, answer.headers["Content-Type"], answer.text[:15]) == (
        200,
        "text/html",
        "<!DOCTYPE html>",
    )


async def truncated_json(bench: Bench) -> None:
    bench.faults.add("truncated-json")
    answer = await bench.api.get("/api/v1/skills")
    assert (answer.status_code, answer.text[:11]) == (200, '{"skills":[')
    with pytest.raises(ValueError):
        answer.json()


async def reset_mid_body(bench: Bench) -> None:
    bench.faults.add("reset-mid-body", times=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
    writer.write(b"GET /api/v1/skills HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sim-token\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = await reader.readexactly(size // 2)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body.startswith(b'{"skills":[')
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()
    assert await status(bench) == 200


async def slow_body(bench: Bench) -> None:
    bench.faults.add("slow-body", times=1, seconds=0.2)
    began = asyncio.get_running_loop().time()
    async with bench.api.stream("GET", "/api/v1/skills") as answer:
        chunks = [chunk async for chunk in answer.aiter_raw()]
    assert len(chunks) > 3
    assert asyncio.get_running_loop().time() - began > 0.15
    assert len(json.loads(b"".join(chunks))["skills"]) == 100


async def empty_listing(bench: Bench) -> None:
    bench.faults.add("empty-listing")
    page = (await bench.listed(pages=1))[0]
    assert page == {"skills": [], "page": 1, "page_size": 20, "total": 0, "total_pages": 0}


async def shrunken_listing(bench: Bench) -> None:
    bench.faults.add("shrunken-listing")
    pages = await bench.listed()
    assert [len(page["skills"]) for page in pages] == [20, 20, 0, 0, 0]
    assert {(page["total"], page["total_pages"]) for page in pages} == {(40, 2)}


async def partial_listing(bench: Bench) -> None:
    bench.faults.add("partial-listing")
    pages = await bench.listed()
    assert [len(page["skills"]) for page in pages] == [20, 0, 0, 0, 20]
    assert {(page["total"], page["total_pages"]) for page in pages} == {(100, 5)}
    assert [len(page["skills"]) for page in await bench.listed(50, 2)] == [50, 0]


async def page_drift(bench: Bench) -> None:
    bench.faults.add("page-drift")
    async with bench.stream() as stream:
        await bench.opened()
        rows = [skill["skill_id"] for page in await bench.listed() for skill in page["skills"]]
        kinds = [(await hear(stream))["type"] for _ in range(4)]
    assert kinds == ["skill_update", "skill_delete"] * 2
    assert len(rows) == 100
    repeated = {row for row in rows if rows.count(row) > 1}
    slipped = bench.market.skills.keys() - set(rows)
    assert (repeated, slipped) == ({"s80", "s40"}, {"s60", "s20"})


async def stale_page(bench: Bench) -> None:
    bench.faults.add("stale-page")
    bench.change(1)
    bench.market.delete_skill("s99")
    bench.market.put_category({"name": "d"})
    rows = {skill["skill_id"]: skill for page in await bench.listed() for skill in page["skills"]}
    assert (len(rows), rows["s0"].get("version")) == (100, None)
    assert len((await bench.api.get("/api/v1/categories")).json()["categories"]) == 1
    assert await status(bench, "/api/v1/skills/s99") == 404
    bench.faults.remove("stale-page")
    assert (await bench.listed(pages=1))[0]["total"] == 99


async def bare_list(bench: Bench) -> None:
    bench.faults.add("bare-list")
    pages = await bench.listed(30, 5)
    assert [len(page) for page in pages] == [30, 30, 30, 10, 0]
    assert (await bench.api.get("/api/v1/categories")).json() == [bench.market.categories["c"]]


async def no_totals(bench: Bench) -> None:
    bench.faults.add("no-totals")
    assert (await bench.listed(pages=1))[0].keys() == {"skills", "page", "page_size"}


async def aliases(bench: Bench) -> None:
    bench.faults.add("aliases")
    alias = {"id": "s99", "skill_name": "Skill 99", "avg_rating": 4.0}
    assert (await bench.listed(pages=1))[0]["skills"][0] == alias
    assert (await bench.api.get("/api/v1/skills/s99")).json() == {**alias, "ratings": []}
    assert (await bench.api.get("/api/v1/categories")).json() == {"categories": [{"category": "c"}]}
    async with bench.stream() as stream:
        await bench.opened()
        bench.change(1)
        assert (await hear(stream))["data"]["id"] == "s0"


Proof = Callable[[Bench], Awaitable[None]]
PROOFS: dict[str, tuple[Proof, ...]] = {
    "refuse": (refuse,), "accept-then-close": (accept_then_close,), "slow-handshake": (slow_handshake,),
    "forbidden": (forbidden,), "ws-429": (ws_429,), "close-4401": (close_4401,), "close-1008": (close_1008,),
    "mute": (mute, mute_for_one_stream), "dropped-event": (dropped_event,), "duplicate": (duplicate,),
    "reorder": (reorder,), "oversize": (oversize,), "oversize-hard": (oversize_hard,), "malformed": (malformed,),
    "broken-frame": (broken_frame,), "flood": (flood,), "unauthorized": (unauthorized,), "http-away": (http_away,),
    "http-429": (http_429,), "http-500": (http_500,), "http-503": (http_503,), "redirect": (redirect,),
    "html-200": (html_200,), "truncated-json": (truncated_json,), "reset-mid-body": (reset_mid_body,),
    "slow-body": (slow_body,), "empty-listing": (empty_listing,), "shrunken-listing": (shrunken_listing,),
    "partial-listing": (partial_listing,), "page-drift": (page_drift,), "stale-page": (stale_page,),
    "bare-list": (bare_list,), "no-totals": (no_totals,), "aliases": (aliases,),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_does_on_the_wire_what_it_describes(bench: Bench, name: str):
    for proof in PROOFS[name]:
        await proof(bench)
        bench.faults.clear()
        await bench.server.until(lambda: not bench.server.clients)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_for_a_whole_run_can_be_set(name: str):
    server = SimulatorServer(Marketplace())
    server.faults.add_for_a_run(name)
    assert name in server.faults
