"""Marketplaces that misbehave byte by byte, for the tests of `upstream`, and the errors that it raises for them.

The simulator sends well-formed HTTP only.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Opcode
from websockets.http11 import Request, Response

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.errors import UnreachableError
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Stream

TOKEN = "sekret/tok+1%&=#en"  # a URL must quote it
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def config(**changes: Any) -> SyncConfig:
    """Return settings with that token; the addresses lead nowhere unless given."""
    return SyncConfig(api_token=Secret(TOKEN), **changes)


async def no_wait(_: float) -> None:
    """Do not wait: the sleep of a client whose tries follow one another immediately."""


async def reasons(settings: SyncConfig) -> list[str]:
    """Return why neither HTTP nor the stream reaches that marketplace."""
    access = Access(settings)
    with pytest.raises(UnreachableError) as by_stream:
        await Stream.open(settings, access)
    async with MarketClient(settings, access, sleep=no_wait) as market:
        with pytest.raises(UnreachableError) as by_http:
            await market.categories()
    assert not by_http.value.refused_token and not by_stream.value.refused_token
    return [by_http.value.reason, by_stream.value.reason]


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """One HTTP request as it was received."""

    method: str
    target: str
    headers: dict[str, str]


class ScriptedHttp:
    """A server that gives the n-th request the n-th answer: bytes, or a function that writes. The last one repeats."""

    def __init__(self, *answers: bytes | Script) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.port = 0
        self._serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "ScriptedHttp":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        # Since Python 3.12 `wait_closed` waits for each of them, and some answers never end.
        for writer in self._serving.values():
            # asyncio raises for a transport that was closed while it had data to write, and has written it.
            if writer.transport.get_write_buffer_size() or not writer.transport.is_closing():
                writer.transport.abort()
        if self._serving:
            await asyncio.wait(self._serving, timeout=1)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            pairs = (line.partition(": ") for line in head[1:] if line)
            self.asked.append(Asked(method, target, {name.lower(): value for name, _, value in pairs}))
            answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


def answer(status: int, body: bytes = b"{}", *headers: str, length: int | None = None) -> bytes:
    """Return an HTTP answer; `length` makes its Content-Length wrong."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


@contextlib.asynccontextmanager
async def ws_peer(
    serve_one: Callable[[ServerConnection], Awaitable[None]],
    *,
    process_request: Callable[[ServerConnection, Request], Response | None] | None = None,
    process_response: Callable[[ServerConnection, Request, Response], Response | None] | None = None,
) -> AsyncIterator[str]:
    """Run a WebSocket server that calls `serve_one` for each client, and does nothing else. Yield its address."""
    connections: list[ServerConnection] = []

    async def noted(connection: ServerConnection) -> None:
        connections.append(connection)
        await serve_one(connection)

    server = await serve(
        noted,
        "127.0.0.1",
        0,
        ping_interval=None,
        close_timeout=0.05,
        max_size=None,
        process_request=process_request,
        process_response=process_response,
    )
    try:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
    finally:
        # Not `server.close()`: it would wait for peers that are deaf on purpose.
        for connection in connections:
            connection.transport.abort()
        server.close()
        await server.wait_closed()


def no_pong_frames(connection: ServerConnection) -> None:
    """Stop this peer's library from answering ping frames."""
    send_frame = connection.protocol.send_frame
    connection.protocol.send_frame = (  # type: ignore[method-assign]
        lambda frame: None if frame.opcode is Opcode.PONG else send_frame(frame)
    )
