"""The token is in a header and in a URL, and in no text: of an exception, its causes, or a log."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from websockets.asyncio.server import ServerConnection

from marketplace_sync.logs import install
from marketplace_sync.tests.support.upstream_peers import TOKEN, Script, ScriptedHttp, answer, config, no_wait, ws_peer
from marketplace_sync.upstream.errors import QUOTED_CHARS, UpstreamError, quoted
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Stream

QUOTED = quote(TOKEN, safe="")
ECHO = f"no {TOKEN} and no {QUOTED}".encode()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


ANSWERS: dict[str, bytes | Script] = {
    "refused": answer(401, ECHO),
    "limited": answer(429, ECHO, "Retry-After: 999"),
    "broken": answer(500, ECHO),
    "redirected": answer(302, b"", f"Location: http://h/?token={QUOTED}"),
    "not JSON": answer(200, ECHO),
    "JSON with the token": answer(200, b'{"error": "%s"}' % ECHO),
    "another skill": answer(200, b'{"skill_id": "%s", "name": "N"}' % ECHO),
    "packed strangely": answer(200, ECHO, f"Content-Encoding: {TOKEN}"),
    "cut": answer(200, ECHO, length=999),
    "no HTTP": ECHO + b"\r\n\r\n",
    "odd headers": answer(101, b"", f"Upgrade: {TOKEN}", f"Connection: {TOKEN}"),
    "reset": hang_up,
    "silent": never,
}


@contextlib.asynccontextmanager
async def served(name: str) -> AsyncIterator[str]:
    if name == "nobody there":
        async with ScriptedHttp(b"") as server:
            pass
        yield server.url
    elif name == "no such host":
        yield "http://no-such-host.invalid"
    elif name == "impossible address":
        yield f"http://[::1/{TOKEN}"
    else:
        async with ScriptedHttp(ANSWERS[name]) as server:
            yield server.url


async def by_http(url: str) -> None:
    settings = config(api_url=url, api_timeout=0.2)
    async with MarketClient(settings, sleep=no_wait) as market:
        await market.skill("s1")


async def by_stream(url: str) -> None:
    settings = config(ws_url=url.replace("http", "ws"), connect_timeout=0.2)
    stream = await Stream.open(settings)
    await stream.run(lambda event, raw: None)


@pytest.fixture
def masked() -> None:
    """Mask what is logged, as in production. At DEBUG the HTTP library logs the headers of answers."""
    install()


def assert_unseen(fault: UpstreamError, caplog: pytest.LogCaptureFixture) -> None:
    shown = "".join(traceback.format_exception(fault)) + repr(fault) + fault.reason
    # A refused body stays as it came, for the dead letter, which masks it when it is stored.
    shown += str({name: value for name, value in vars(fault).items() if name != "body"})
    # A peer in this process logs what it received; the rest is ours.
    shown += "".join(record.getMessage() for record in caplog.records if record.name != "websockets.server")
    chain: BaseException | None = fault
    while chain is not None:
        shown += str(chain) + repr(chain)
        chain = chain.__cause__
    assert TOKEN not in shown
    assert QUOTED not in shown
    assert len(fault.reason) < QUOTED_CHARS + 100


FAILURES = [*ANSWERS, "nobody there", "no such host", "impossible address"]


@pytest.mark.usefixtures("everything_logged", "unredacted_records")
@pytest.mark.parametrize("name", FAILURES)
async def test_no_failure_of_the_stream_contains_the_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served(name) as url:
        with pytest.raises(UpstreamError) as caught:
            await by_stream(url)
    assert_unseen(caught.value, caplog)


@pytest.mark.usefixtures("everything_logged", "masked")
@pytest.mark.parametrize("name", FAILURES)
async def test_no_failure_of_a_request_contains_the_token(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served(name) as url:
        with pytest.raises(UpstreamError) as caught:
            await by_http(url)
    assert_unseen(caught.value, caplog)


@pytest.mark.usefixtures("everything_logged", "unredacted_records")
@pytest.mark.parametrize("code", [1000, 1008, 4401])
async def test_no_close_contains_the_token(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.close(code, ECHO.decode())

    async with ws_peer(peer) as url:
        with pytest.raises(UpstreamError) as caught:
            await by_stream(url)
    assert_unseen(caught.value, caplog)


@pytest.mark.usefixtures("everything_logged", "unredacted_records")
async def test_the_librarys_debug_log_contains_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """The records that these tests search contain DEBUG records of the library: those of the peer in this process."""

    async def peer(_: ServerConnection) -> None:
        return

    async with ws_peer(peer) as url:
        with pytest.raises(UpstreamError):
            await by_stream(url)
    assert QUOTED in "".join(record.getMessage() for record in caplog.records if record.name == "websockets.server")


def test_a_servers_text_is_quoted_as_one_short_line() -> None:
    assert quoted("a\n\x1b[31mb\t c") == "a [31mb c"
    assert len(quoted("x" * 1000)) == QUOTED_CHARS
