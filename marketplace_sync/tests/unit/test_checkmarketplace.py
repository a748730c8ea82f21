"""`checkmarketplace`: each step against a marketplace that fails at it, and its hint."""

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from marketplace_sync.conf import Secret, SyncConfig
from marketplace_sync.simulator.variant import Variant
from marketplace_sync.tests.support.harness import TOKEN, marketplace, skill
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp, answer, no_pong_frames, ws_peer
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.checkup import Checkup, Step

STEPS = ["dns", "tcp", "tls", "health", "token", "listing", "websocket", "heartbeat"]
HEALTHY = b'{"status": "healthy"}'
ROW = {"skill_id": "s1", "name": "One"}


async def steps(config: SyncConfig) -> list[Step]:
    taken = [step async for step in Checkup(config, Access(config)).run()]
    assert [step.step for step in taken] == STEPS[: len(taken)]
    assert all(step.ok and not step.hint for step in taken[:-1])
    assert TOKEN not in repr(taken)
    assert all(step.seconds >= 0 and len(step.detail) <= 200 for step in taken)
    return taken


async def failure(config: SyncConfig) -> Step:
    last = (await steps(config))[-1]
    assert not last.ok
    assert last.detail and last.hint
    return last


def at(url: str, **changes: Any) -> SyncConfig:
    quick: dict[str, Any] = {"connect_timeout": 5.0, "api_timeout": 5.0, "pong_timeout": 5.0}
    return SyncConfig(
        api_token=Secret(TOKEN),
        **{**quick, "api_url": url, "ws_url": url.replace("http", "ws", 1) + "/ws", **changes},
    )


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def site(**answers: bytes) -> ScriptedHttp:
    """Return a server with an answer for each last part of a path; `ws` is the handshake's."""

    async def by_path(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = server.asked[-1].target.partition("?")[0].rpartition("/")[2]
        writer.write(answers.get(name, answer(404)))

    server = ScriptedHttp(by_path)
    return server


def sound(**answers: bytes) -> ScriptedHttp:
    """Return a marketplace that works, except for these answers."""
    whole = {
        "health": answer(200, HEALTHY),
        "categories": answer(200, b'{"categories": []}'),
        "skills": answer(200, json.dumps({"skills": [ROW]}).encode()),
    }
    return site(**{**whole, **answers})


# What works.


@pytest.mark.parametrize(
    "variant", [Variant(), Variant(base="/api", prefix="/m", api_auth="X-T", ws_auth="bearer", ws_path="/live")]
)
async def test_a_working_marketplace_passes_every_step(variant: Variant) -> None:
    async with marketplace(3, variant=variant) as server:
        taken = await steps(
            at(
                server.api_url, ws_url=server.ws_url, api_prefix=variant.prefix, api_auth=variant.api_auth,
                ws_auth=variant.ws_auth,
            )
        )  # fmt: skip
        assert [step.step for step in taken] == STEPS
        assert taken[-1].ok
        assert len(server.connects) == 1
    details = {step.step: step.detail for step in taken}
    assert details["dns"] == "127.0.0.1: 127.0.0.1"
    assert details["tls"] == "not used"
    assert details["health"] == "healthy"
    assert details["listing"] == "3 of 3 skills on the first page"
    assert "pong" in details["heartbeat"]


async def test_polling_only_needs_no_stream() -> None:
    async with sound() as server:
        taken = await steps(at(server.url, ws_enabled=False, ws_url="ws://no.invalid/ws"))
    assert [step.detail for step in taken[-2:]] == ["not used: ATOM_SAAS_WS_ENABLED is false", "not used"]
    assert taken[-1].ok


async def test_a_degraded_marketplace_passes_and_a_clock_that_differs_is_mentioned() -> None:
    health = answer(200, b'{"status": "degraded"}', "Date: Wed, 01 Jan 2020 00:00:00 GMT")
    async with sound(health=health) as server:
        taken = await steps(at(server.url, ws_enabled=False))
    detail = next(step.detail for step in taken if step.step == "health")
    assert detail.startswith("degraded; its clock is ")
    assert "behind this machine's" in detail


async def test_unreadable_rows_are_counted() -> None:
    rows = json.dumps({"skills": [ROW, {**ROW, "tags": "text"}]}).encode()
    async with sound(skills=answer(200, rows)) as server:
        taken = await steps(at(server.url, ws_enabled=False))
    assert taken[5].ok
    assert taken[5].detail.startswith("1 of 2 rows can't be read; the first: tags: must be a list")


# The network.


async def test_a_name_that_does_not_exist_fails_at_dns() -> None:
    step = await failure(at("http://nowhere.invalid"))
    assert (step.step, "ATOM_SAAS_API_URL" in step.hint) == ("dns", True)
    assert "nowhere.invalid" in step.detail


async def test_the_streams_own_host_is_resolved_as_well() -> None:
    async with sound() as server:
        step = await failure(at(server.url, ws_url="ws://nowhere.invalid/ws"))
    assert (step.step, "ATOM_SAAS_WS_URL" in step.hint) == ("dns", True)


async def test_a_port_where_nobody_listens_fails_at_tcp() -> None:
    step = await failure(at(f"http://127.0.0.1:{free_port()}"))
    assert (step.step, "Connection refused" in step.detail) == ("tcp", True)
    assert "ATOM_SAAS_API_URL" in step.hint and "HTTPS_PROXY" in step.hint


async def test_a_proxy_that_is_not_there_is_named() -> None:
    step = await failure(at("http://market.invalid", http_proxy=Secret(f"http://127.0.0.1:{free_port()}")))
    assert step.step == "tcp"
    assert "HTTP_PROXY" in step.hint and "ATOM_SAAS_API_URL" not in step.hint


async def test_https_where_only_http_is_spoken_fails_at_tls() -> None:
    async with marketplace(1) as server:
        step = await failure(at(server.api_url.replace("http:", "https:")))
    assert (step.step, "http:// in ATOM_SAAS_API_URL" in step.hint) == ("tls", True)


async def test_a_server_that_hangs_up_on_tls_is_not_blamed_on_a_proxy() -> None:
    async with sound() as server:
        step = await failure(at(server.url.replace("http:", "https:")))
    assert step.step == "tls"
    assert "ATOM_SAAS_API_URL" in step.hint and "proxy" not in step.hint


# HTTP.


HTTP_FAILURES: list[tuple[dict[str, bytes], str, str]] = [
    ({"health": answer(503)}, "health", "maintenance"),
    ({"health": answer(200, b'{"status": "down"}')}, "health", "maintenance"),
    ({"health": answer(404)}, "health", "ATOM_SAAS_API_URL"),
    ({"health": answer(200, b"<html></html>")}, "health", "ATOM_SAAS_API_URL"),
    ({"health": answer(301, b"", "Location: https://x.invalid")}, "health", "ATOM_SAAS_API_URL"),
    ({"health": answer(429, b'{"retry_after": 7}')}, "health", "ATOM_SAAS_API_REQUESTS_PER_MINUTE"),
    ({"categories": answer(401)}, "token", "ATOM_SAAS_API_TOKEN"),
    ({"categories": answer(403)}, "token", "ATOM_SAAS_API_AUTH"),
    ({"skills": answer(404), "categories": answer(404)}, "listing", "ATOM_SAAS_API_PREFIX"),
    ({"skills": answer(500)}, "listing", "down"),
    ({"skills": answer(200, b"<html>")}, "listing", "ATOM_SAAS_API_PREFIX"),
    ({"skills": answer(200, b'[{"id": 1, "name": "x", "updated_at": 5}]')}, "listing", "ATOM_SAAS_API_PREFIX"),
    ({"skills": answer(422)}, "listing", "ATOM_SAAS_PAGE_SIZE"),
]


@pytest.mark.parametrize(("answers", "at_step", "setting"), HTTP_FAILURES)
async def test_each_http_failure_names_its_setting(answers: dict[str, bytes], at_step: str, setting: str) -> None:
    async with sound(**answers) as server:
        step = await failure(at(server.url))
        assert len(server.asked) <= STEPS.index(at_step) - 2, "nothing is tried twice"
    assert (step.step, setting in step.hint) == (at_step, True), step


@pytest.mark.parametrize(
    ("categories", "reason", "hint"),
    [
        (answer(404), "HTTP 404", "ask the marketplace about GET /api/v1/categories"),
        (answer(500), "HTTP 500", "the marketplace is down"),
        (answer(200, b"<html>"), "not JSON", "ask the marketplace about GET /api/v1/categories"),
        (answer(200, b'{"error": "no"}'), "error", "ask the marketplace about GET /api/v1/categories"),
    ],
)
async def test_unreadable_categories_fail_at_the_listing(categories: bytes, reason: str, hint: str) -> None:
    async with sound(categories=categories) as server:
        last = await failure(at(server.url))
    assert last.step == "listing"
    assert "1 skills on the first page, but no categories" in last.detail and reason in last.detail
    assert hint in last.hint


async def test_a_server_that_never_answers_names_the_time_out() -> None:
    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedHttp(never) as server:
        step = await failure(at(server.url, api_timeout=0.2))
    assert (step.step, "ATOM_SAAS_API_TIMEOUT_SECONDS" in step.hint) == ("health", True)


# The stream.


@pytest.mark.parametrize(
    ("handshake", "setting"),
    [
        (answer(401), "ATOM_SAAS_WS_AUTH"),
        (answer(403), "ATOM_SAAS_WS_AUTH"),
        (answer(404), "ATOM_SAAS_WS_URL"),
        (answer(200, b"<html>"), "ATOM_SAAS_WS_URL"),
        (answer(302, b"", "Location: /x"), "ATOM_SAAS_WS_URL"),
        (answer(429), "10 connection attempts"),
        (answer(503), "down"),
        (b"nonsense\r\n\r\n", "ATOM_SAAS_WS_URL"),
    ],
)
async def test_each_failed_handshake_names_its_setting(handshake: bytes, setting: str) -> None:
    async with sound(ws=handshake) as server:
        step = await failure(at(server.url))
    assert (step.step, setting in step.hint) == ("websocket", True), step


@pytest.mark.parametrize(
    ("close_with", "setting"), [(None, "ATOM_SAAS_WS_PONG_TIMEOUT"), (4401, "ATOM_SAAS_WS_AUTH"), (1000, "closes")]
)
async def test_a_stream_that_ends_early_fails_at_the_heartbeat(close_with: int | None, setting: str) -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)
        if close_with is not None:
            await connection.close(close_with)
        await connection.wait_closed()

    async with sound() as server, ws_peer(peer) as url:
        step = await failure(at(server.url, ws_url=url, pong_timeout=0.3))
    assert (step.step, setting in step.hint) == ("heartbeat", True), step


async def test_a_peer_that_answers_ping_frames_alone_is_accepted() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(json.dumps({"type": "skill_update", "data": skill(1)}))
        await connection.wait_closed()

    async with sound() as server, ws_peer(peer) as url:
        taken = await steps(at(server.url, ws_url=url))
    assert taken[-1].ok
    assert taken[-1].detail.startswith("a pong frame")


async def test_the_token_is_sent_to_the_stream_only_as_configured() -> None:
    targets: list[str] = []

    def note(_: ServerConnection, request: Request) -> Response | None:
        targets.append(request.path)
        return None

    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with sound() as server, ws_peer(peer, process_request=note) as url:
        await steps(at(server.url, ws_url=url, ws_auth="query:key"))
    assert [target.partition("=")[0] for target in targets] == ["/ws?key"]
