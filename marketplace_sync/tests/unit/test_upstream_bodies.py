"""The HTTP client: bodies that are slow, compressed, large, malformed or no HTTP."""

import asyncio
import gzip
import json
import threading
import zlib
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from marketplace_sync.protocol.listing import decode_skill_page
from marketplace_sync.protocol.refusals import Code
from marketplace_sync.tests.support.upstream_clients import PAGE, Clock, client, never, page_of
from marketplace_sync.tests.support.upstream_peers import NOW, Script, ScriptedHttp, answer
from marketplace_sync.upstream import market as upstream_market
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    UnreachableError,
    UpstreamTimeoutError,
)


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


@pytest.mark.parametrize("script", [never, _drip, _drip_headers])
async def test_an_answer_that_does_not_end_times_out(script: Script) -> None:
    async with ScriptedHttp(script) as server:
        with pytest.raises(UpstreamTimeoutError):
            await page_of(server, api_timeout=0.05)
    assert len(server.asked) == 4


async def test_a_gzip_body_is_decompressed() -> None:
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
async def test_a_compressed_body_is_read_in_every_form_and_chunking(name: str, pieces: int) -> None:
    """`pieces`: the bytes per write."""
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
async def test_a_compressed_body_is_complete_at_every_size(size: int) -> None:
    body = PAGE + b" " * (size - len(PAGE))
    async with ScriptedHttp(answer(200, gzip.compress(body), "Content-Encoding: gzip")) as server:
        assert (await page_of(server, max_body_bytes=size)).rows == 1


async def test_a_body_of_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
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
async def test_an_answer_that_is_no_listing_raises_and_is_never_an_empty_one(name: str) -> None:
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
async def test_an_answer_that_is_no_http_is_unreachable(junk: bytes) -> None:
    async with ScriptedHttp(junk) as server:
        with pytest.raises(UnreachableError):
            await page_of(server)


async def test_a_refused_connection_has_the_systems_reason() -> None:
    async with ScriptedHttp(answer(200)) as server:
        pass
    with pytest.raises(UnreachableError, match="refused"):
        await page_of(server)


async def test_times_are_compared_with_the_servers_clock() -> None:
    server_time = NOW + timedelta(days=400)
    body = json.dumps([{"skill_id": "s1", "name": "N", "updated_at": server_time.isoformat()}]).encode()
    async with ScriptedHttp(answer(200, body, f"Date: {format_datetime(server_time, usegmt=True)}")) as server:
        assert (await page_of(server)).skills[0].updated is not None
    async with ScriptedHttp(answer(200, body)) as server:
        assert (await page_of(server)).skills[0].updated is None


async def test_health_returns_the_marketplaces_answer() -> None:
    async with ScriptedHttp(answer(200, b'{"status": "healthy"}')) as server, client(server, Clock()) as market:
        assert await market.health() == {"status": "healthy"}
    async with ScriptedHttp(answer(200, b"[]")) as server, client(server, Clock()) as market:
        with pytest.raises(MalformedResponseError):
            await market.health()


async def test_decompressing_a_large_body_lets_other_tasks_run() -> None:
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
    ("body", "inline"),
    [(PAGE, True), (b"[" + b",".join([b"{}"] * 100_000) + b"]", False), (b"[]" + b" " * 2_000_000, False)],
    ids=["documented", "many rows", "many bytes"],
)
async def test_decoding_a_large_body_lets_other_tasks_run(
    monkeypatch: pytest.MonkeyPatch, body: bytes, inline: bool
) -> None:
    """A hundred thousand refused rows have 300 KB, and take a second."""
    decoded_in: list[threading.Thread] = []

    def decode(body: bytes, **how: Any) -> Any:
        decoded_in.append(threading.current_thread())
        return decode_skill_page(body, **how)

    monkeypatch.setattr(upstream_market, "decode_skill_page", decode)
    async with ScriptedHttp(answer(200, body)) as server:
        await page_of(server)
    assert (decoded_in == [threading.main_thread()]) is inline
