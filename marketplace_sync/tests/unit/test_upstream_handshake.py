"""The handshake of the stream: what it sends, and the error for each answer."""

import asyncio
from datetime import timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from marketplace_sync.tests.support.upstream_clients import open_stream
from marketplace_sync.tests.support.upstream_peers import (
    NOW,
    TOKEN,
    ScriptedHttp,
    answer,
    ws_peer,
)
from marketplace_sync.upstream.errors import (
    RateLimitedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from marketplace_sync.upstream.handshake import with_token


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("wss://h/ws", "wss://h/ws?token=t%2F+"),
        ("wss://h/ws?a=1&b=%20", "wss://h/ws?a=1&b=%20&token=t%2F+"),
        ("wss://h/ws?token=old&a=1#f", "wss://h/ws?a=1&token=t%2F+"),
        ("ws://h", "ws://h?token=t%2F+"),
    ],
)
def test_the_token_is_added_to_the_other_parameters(given: str, made: str) -> None:
    assert with_token(given, "t/ ") == made.replace("+", "%20")


async def test_the_handshake_sends_the_token_and_offers_no_compression() -> None:
    requests: list[Request] = []

    async def peer(_: ServerConnection) -> None:
        return

    def note(_: ServerConnection, request: Request) -> None:
        requests.append(request)

    async with ws_peer(peer, process_request=note) as url:
        (await open_stream(url + "?a=1")).abort()
    assert parse_qs(urlsplit(requests[0].path).query) == {"a": ["1"], "token": [TOKEN]}
    assert "Sec-WebSocket-Extensions" not in requests[0].headers
    assert requests[0].headers["User-Agent"].startswith("marketplace-mirror/")


HANDSHAKES: list[tuple[bytes, type[UpstreamError], str]] = [
    (answer(401), TokenRefusedError, "401"),
    (answer(403), TokenRefusedError, "403"),
    (answer(429), RateLimitedError, "429"),
    (answer(503, b"", "Retry-After: 9"), UnreachableError, "503"),
    (answer(200, b"<html>"), UnreachableError, "200"),
    (answer(302), UnreachableError, "302"),
    (b"", UnreachableError, "broke off"),
    (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", UnreachableError, "broke off"),
    (answer(101, b""), UnreachableError, "Connection"),
]


@pytest.mark.parametrize(("response", "kind", "text"), HANDSHAKES)
async def test_a_failed_handshake_raises_the_error_of_its_kind(
    response: bytes, kind: type[UpstreamError], text: str
) -> None:
    async with ScriptedHttp(response) as server:
        with pytest.raises(kind, match=text) as caught:
            await open_stream(server.url.replace("http", "ws"))
    assert caught.value.refused_token is (kind is TokenRefusedError)
    assert len(server.asked) == 1


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_429_at_the_handshake_has_its_retry_after(as_date: bool) -> None:
    server_time = NOW + timedelta(days=900)
    when = format_datetime(server_time + timedelta(seconds=7), usegmt=True) if as_date else "7"
    response = answer(429, b"", f"Retry-After: {when}", f"Date: {format_datetime(server_time, usegmt=True)}")
    async with ScriptedHttp(response) as server:
        with pytest.raises(RateLimitedError) as caught:
            await open_stream(server.url.replace("http", "ws"))
    assert caught.value.retry_after == 7.0


async def test_a_429_at_the_handshake_may_name_the_wait_in_its_body() -> None:
    async with ScriptedHttp(answer(429, b'{"error": "slow down", "retry_after": 7}')) as server:
        with pytest.raises(RateLimitedError) as caught:
            await open_stream(server.url.replace("http", "ws"))
    assert caught.value.retry_after == 7.0


async def test_a_redirect_of_the_handshake_is_not_followed() -> None:
    async with ScriptedHttp(answer(200)) as thief:
        target = thief.url.replace("http", "ws")
        async with ScriptedHttp(answer(307, b"", f"Location: {target}/ws")) as server:
            with pytest.raises(UnreachableError, match="redirect"):
                await open_stream(server.url.replace("http", "ws"))
    assert thief.asked == []


async def test_a_refused_connection_is_unreachable() -> None:
    async with ScriptedHttp(b"") as server:
        pass
    with pytest.raises(UnreachableError, match="refused"):
        await open_stream(server.url.replace("http", "ws"))


async def test_a_slow_handshake_times_out() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedHttp(never) as server:
        with pytest.raises(UpstreamTimeoutError):
            await open_stream(server.url.replace("http", "ws"), connect_timeout=0.05)


async def test_compression_that_we_did_not_offer_is_refused() -> None:
    async def peer(_: ServerConnection) -> None:
        return

    def insist(_: ServerConnection, __: Request, response: Response) -> None:
        response.headers["Sec-WebSocket-Extensions"] = "permessage-deflate"

    async with ws_peer(peer, process_response=insist) as url:
        with pytest.raises(UnreachableError):
            await open_stream(url)
