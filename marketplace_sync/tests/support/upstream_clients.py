"""Clients of `upstream` for its tests: an HTTP client with a clock, and a stream whose messages are recorded."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.server import ServerConnection

from marketplace_sync.engine.rates import RequestBudget
from marketplace_sync.protocol.events import Change, SkillRecord
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.tests.support.upstream_peers import (
    NOW,
    ScriptedHttp,
    config,
    ws_peer,
)
from marketplace_sync.upstream.errors import (
    UpstreamError,
)
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Receive, Stream

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


async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


Peer = Callable[[ServerConnection], Awaitable[None]]


def update(number: int, **fields: Any) -> str:
    return json.dumps({"type": "skill_update", "data": {"skill_id": f"s{number}", "name": "N", **fields}})


class Received(NamedTuple):
    """One message that is not a heartbeat: the change, or why it was refused."""

    event: Change | Refusal
    raw: bytes


def into(received: list[Received]) -> Receive:
    """Return a receiver that appends to `received`."""
    return lambda event, raw: received.append(Received(event, raw))


def ids(received: list[Received]) -> list[str]:
    return [item.event.skill_id for item in received if isinstance(item.event, SkillRecord)]


async def open_stream(ws_url: str, **changes: Any) -> Stream:
    return await Stream.open(config(ws_url=ws_url, **changes), wall=lambda: NOW)


async def run_against(peer: Peer, **changes: Any) -> tuple[list[Received], UpstreamError]:
    """Return the messages that were passed on, and the error with which the stream ended."""
    received: list[Received] = []
    async with ws_peer(peer) as url:
        stream = await open_stream(url, **changes)
        with pytest.raises(UpstreamError) as caught:
            async with asyncio.timeout(5):
                await stream.run(into(received))
    return received, caught.value


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
