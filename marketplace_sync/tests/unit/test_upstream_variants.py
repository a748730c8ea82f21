"""Deployments that differ in path, header and stream address: the client reaches each, and shows the token in none."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.logs import protect
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.simulator.variant import Variant
from marketplace_sync.tests.support.harness import CATEGORY, TOKEN, skill
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp, answer, no_wait
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.errors import TokenRefusedError, UpstreamError, UpstreamServerError
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.stream import Stream

VARIANTS = {
    "as documented": Variant(),
    "below /api": Variant(base="/api", prefix="/marketplace"),
    "a longer prefix": Variant(prefix="/api/v1/marketplace", ws_auth="query:key", ws_path="/stream/v2"),
    "no prefix": Variant(prefix="", api_auth="X-API-Token", ws_auth="X-API-Token"),
    "bearer on both": Variant(ws_auth="bearer"),
    "the bare token": Variant(base="/a", prefix="/b", api_auth="Authorization", ws_auth="Authorization"),
}


def settings_for(server: SimulatorServer) -> SyncConfig:
    """Return the settings of that deployment; the stream's address only if it can't be derived."""
    variant = server.variant
    return SyncConfig(
        api_url=server.api_url, ws_url=server.ws_url, api_token=Secret(TOKEN), api_prefix=variant.prefix,
        api_auth=variant.api_auth, ws_auth=variant.ws_auth,
    )  # fmt: skip


def deployment(variant: Variant) -> SimulatorServer:
    return SimulatorServer(Marketplace([skill(1)], [CATEGORY]), TOKEN, variant=variant)


async def use(config: SyncConfig) -> None:
    """Everything that the mirror asks a marketplace for."""
    access = Access(config)
    async with MarketClient(config, access, sleep=no_wait) as market:
        assert (await market.health())["status"] == "healthy"
        page = await market.skill_page(1, page_size=10)
        assert page.total == 1
        assert await market.skill("skill-00001") is not None
        assert await market.skill("none") is None
        assert len((await market.categories()).categories) == 1
    await (await Stream.open(config, access)).close()


@pytest.mark.parametrize("name", VARIANTS)
async def test_every_deployment_is_reached_and_the_token_is_never_seen(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    protect(TOKEN)
    caplog.set_level(logging.DEBUG)
    for library in ("httpx2", "httpcore2", "websockets", "asyncio"):
        caplog.set_level(logging.DEBUG, library)
    async with deployment(VARIANTS[name]) as server:
        await use(settings_for(server))
        assert server.heard is not None and len(server.connects) == 1
    assert "httpcore2" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "as documented"])
async def test_no_deployment_is_reached_by_the_settings_of_another(name: str) -> None:
    async with deployment(VARIANTS[name]) as server:
        config = replace(settings_for(server), api_prefix="/api/v1", api_auth="bearer", ws_auth="query:token")
        if config == settings_for(server):
            config = replace(config, ws_auth="X-Other")
        with pytest.raises((UpstreamServerError, TokenRefusedError)) as caught:
            await use(config)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("auth", ["bearer", "X-API-Token", "Authorization", "query:key"])
@pytest.mark.parametrize("status", [302, 307, 401, 403, 404, 500])
async def test_the_token_goes_to_no_other_host_and_into_no_reason(
    auth: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    protect(TOKEN)
    caplog.set_level(logging.DEBUG)
    async with ScriptedHttp(answer(200)) as thief:
        away = answer(status, f"no {TOKEN}".encode(), f"Location: {thief.url}/?token={TOKEN}")
        async with ScriptedHttp(away) as server:
            header = "bearer" if auth.startswith("query") else auth
            config = SyncConfig(
                api_url=server.url, ws_url=server.url.replace("http", "ws"), api_token=Secret(TOKEN),
                api_auth=header, ws_auth=auth,
            )  # fmt: skip
            access = Access(config)
            async with MarketClient(config, access, sleep=no_wait) as market:
                with pytest.raises(UpstreamError) as by_http:
                    await market.skill_page(1, page_size=10)
            with pytest.raises(UpstreamError) as by_stream:
                await Stream.open(config, access)
            sent = server.asked
    assert thief.asked == []
    assert TOKEN not in f"{by_http.value!r} {by_stream.value!r} {caplog.text}"
    # It was sent, in the place that the settings name and in no other.
    handshake = sent[-1]
    assert (TOKEN in handshake.target) is auth.startswith("query")
    assert carriers(sent[0].headers) == [header.lower() if header != "bearer" else "authorization"]
    assert carriers(handshake.headers) == ([] if auth.startswith("query") else carriers(sent[0].headers))


def carriers(headers: dict[str, Any]) -> list[str]:
    return [name for name, value in headers.items() if TOKEN in value]
