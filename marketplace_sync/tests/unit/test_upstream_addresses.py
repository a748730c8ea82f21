"""A host with several addresses of which some lead nowhere: HTTP, the stream and both through a proxy get there."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.connect_proxy import ConnectProxy
from marketplace_sync.tests.support.harness import TOKEN, skill
from marketplace_sync.tests.support.upstream_peers import no_wait
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.errors import UnreachableError, UpstreamTimeoutError
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Stream

# Far more than the quarter second per dead address, and far less than the connect timeout.
SOON = 4.0
CONNECT_TIMEOUT = 20.0


@contextlib.contextmanager
def black_hole(port: int) -> Iterator[str]:
    """Yield an address that gives no answer on `port`, not even a refusal: its listener's queue is full."""
    address = "127.0.0.2"
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield address


# Nothing listens there.
REFUSING = "127.0.0.3"


def resolve_to(monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str) -> None:
    """Have the resolver give these addresses for `host`, in this order."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop: Any, asked: Any, port: Any, **how: Any) -> Any:
        name = asked.decode() if isinstance(asked, bytes) else asked
        if name != host:
            return await real(loop, asked, port, **how)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


def config(port: int, **changes: Any) -> SyncConfig:
    return SyncConfig(
        api_url=f"http://market.invalid:{port}", ws_url=f"ws://market.invalid:{port}/ws", api_token=Secret(TOKEN),
        **{"connect_timeout": CONNECT_TIMEOUT, "api_timeout": CONNECT_TIMEOUT, **changes},
    )  # fmt: skip


async def both(settings: SyncConfig) -> tuple[float, float]:
    """Return the seconds that HTTP and the stream take to connect."""
    access = Access(settings)
    begun = time.monotonic()
    async with MarketClient(settings, access, sleep=no_wait) as market:
        assert (await market.skill_page(1, page_size=10)).rows == 1
    by_http = time.monotonic()
    stream = await Stream.open(settings, access)
    opened = time.monotonic()
    await stream.close()
    return by_http - begun, opened - by_http


@pytest.mark.parametrize("dead", [("black hole",), ("refusing",), ("black hole", "refusing", "black hole")])
async def test_a_dead_address_of_the_marketplace_delays_neither_http_nor_stream(
    dead: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SimulatorServer(Marketplace([skill(1)], []), TOKEN) as server:
        with black_hole(server.port) as hole:
            ways = [hole if one == "black hole" else REFUSING for one in dead]
            resolve_to(monkeypatch, "market.invalid", *ways, "127.0.0.1")
            assert max(await both(config(server.port))) < SOON


async def test_a_dead_address_of_a_proxy_delays_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SimulatorServer(Marketplace([skill(1)], []), TOKEN) as server, ConnectProxy() as proxy:
        port = int(proxy.address.rpartition(":")[2])
        with black_hole(port) as hole:
            resolve_to(monkeypatch, "proxy.invalid", hole, "127.0.0.1")
            settings = config(server.port, http_proxy=Secret(f"http://proxy.invalid:{port}"))
            assert max(await both(settings)) < SOON
        assert proxy.tunnels == [f"market.invalid:{server.port}"]


async def test_a_host_without_any_live_address_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    async with SimulatorServer(Marketplace([], []), TOKEN) as server:
        settings = config(server.port, connect_timeout=1.0)
        resolve_to(monkeypatch, "market.invalid", REFUSING, REFUSING)
        with pytest.raises(UnreachableError, match="Connection refused"):
            await Stream.open(settings)
        with black_hole(server.port) as hole:
            resolve_to(monkeypatch, "market.invalid", hole, hole)
            with pytest.raises(UpstreamTimeoutError):
                await Stream.open(settings)
