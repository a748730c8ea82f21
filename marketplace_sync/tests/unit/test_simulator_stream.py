"""The simulated marketplace's stream, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from marketplace_sync.simulator import Marketplace, SimulatorServer
from marketplace_sync.simulator.replay import replay
from marketplace_sync.simulator.wire import encode


@pytest.fixture
async def server() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(Marketplace([{"skill_id": "s1", "name": "One"}])) as running:
        yield running


def open_stream(server: SimulatorServer, **options) -> connect:
    return connect(f"{server.ws_url}?token={server.token}", proxy=None, **options)


async def hear(stream: ClientConnection) -> dict:
    async with asyncio.timeout(5):
        return json.loads(await stream.recv())


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_every_change_is_announced_to_every_stream(server, compression):
    market = server.market
    async with open_stream(server, compression=compression) as one, open_stream(server) as two:
        await server.until(lambda: server.clients == 2)
        market.put_skill({"skill_id": "s2", "name": "Zwei 二"})
        market.rate("s2", 5)
        market.put_category({"name": "c"})
        market.delete_skill("s2")
        for stream in (one, two):
            messages = [await hear(stream) for _ in range(4)]
            kinds = ["skill_update", "rating_update", "category_update", "skill_delete"]
            assert [message["type"] for message in messages] == kinds
            assert messages[0]["data"]["name"] == "Zwei 二"
            assert all(message.keys() == {"type", "data", "timestamp"} for message in messages)
        assert "permessage-deflate" in str(two.response.headers.get("Sec-WebSocket-Extensions"))


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong"])
async def test_a_wrong_token_is_refused_at_the_handshake(server, query):
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.ws_url}{query}", proxy=None)
    assert refused.value.response.status_code == 401
    assert "WWW-Authenticate" in refused.value.response.headers
    assert (server.clients, len(server.connects)) == (0, 1)


async def test_eleventh_connect_in_a_minute_gets_429():
    clock = [500.0]
    async with SimulatorServer(Marketplace(), connects_per_minute=10, monotonic=lambda: clock[0]) as server:
        for _ in range(10):
            async with open_stream(server):
                clock[0] += 1
        with pytest.raises(InvalidStatus) as refused:
            await open_stream(server)
        assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (429, "50")
        clock[0] += 50
        async with open_stream(server):
            assert server.connects == [*[500.0 + number for number in range(10)], 510.0, 560.0]


async def test_json_pings_and_ping_frames_are_answered(server):
    async with open_stream(server) as stream:
        await stream.send('{"type":"ping","timestamp":"2026-01-01T00:00:00Z"}')
        answer = await hear(stream)
        assert (answer["type"], answer.keys()) == ("pong", {"type", "timestamp"})
        async with asyncio.timeout(5):
            await (await stream.ping())
        await stream.send("not json")
        await stream.send(b"\x00")
        await stream.send('["ping"]')
        await stream.send('{"type":"ping"}')
        assert (await hear(stream))["type"] == "pong"
    assert server.heard["ping"] == 2
    assert server.heard["ping frame"] == 1


async def test_server_pings_on_time_and_counts_the_answers():
    async with SimulatorServer(Marketplace(), heartbeat_interval=0.02) as server, open_stream(server) as stream:
        for _ in range(3):
            assert (await hear(stream)).keys() == {"type", "timestamp"}
            await stream.send('{"type":"pong"}')
        await server.until(lambda: server.heard["pong"] == 3)


async def test_silent_client_is_disconnected_and_an_answering_one_is_not():
    async with (
        SimulatorServer(Marketplace(), heartbeat_interval=0.05, pong_timeout=0.5) as server,
        open_stream(server, ping_interval=None) as quiet,
        open_stream(server, ping_interval=0.02) as alive,
    ):
        assert (await hear(quiet))["type"] == "ping"
        with pytest.raises(ConnectionClosedError):
            await hear(quiet)
        assert server.clients == 1
        await alive.send('{"type":"pong"}')


async def test_streams_can_be_dropped_or_closed_with_a_code(server):
    async with open_stream(server) as stream:
        await server.until(lambda: server.clients)
        await server.drop_connections()
        with pytest.raises(ConnectionClosedError) as lost:
            await hear(stream)
        assert lost.value.rcvd is None
        assert server.clients == 0
    async with open_stream(server) as stream:
        await server.until(lambda: server.clients)
        await server.drop_connections(1012)
        with pytest.raises(ConnectionClosed) as closed:
            await hear(stream)
        assert closed.value.rcvd.code == 1012


async def test_raw_payloads_are_sent_unchanged(server):
    async with open_stream(server) as stream:
        await server.until(lambda: server.clients)
        server.send_raw("{broken")
        server.send_raw(b"\xff\x00")
        server.send_raw(b"\xff\x00", binary=False)
        assert await stream.recv() == "{broken"
        assert await stream.recv() == b"\xff\x00"
        with pytest.raises(ConnectionClosedError, match="invalid start byte"):
            await stream.recv()


async def test_closing_client_is_answered_and_removed(server):
    async with open_stream(server) as stream:
        await server.until(lambda: server.clients == 1)
        await stream.close(1000)
    assert stream.close_code == 1000
    await server.until(lambda: server.clients == 0)


async def test_port_can_be_released_and_taken_again(server):
    port = server.port
    async with open_stream(server) as stream:
        await server.until(lambda: server.clients)
        await server.hang_up()
        with pytest.raises(ConnectionClosed):
            await hear(stream)
    with pytest.raises(ConnectionRefusedError):
        await open_stream(server)
    await server.listen()
    async with open_stream(server):
        assert server.port == port


async def test_leaving_the_server_closes_its_streams_with_1001():
    async with SimulatorServer(Marketplace()) as server:
        stream = await open_stream(server)
        await server.until(lambda: server.clients)
    with pytest.raises(ConnectionClosed) as closed:
        await hear(stream)
    assert closed.value.rcvd.code == 1001


async def test_slow_client_gets_every_byte_of_a_replay(server, tmp_path: Path):
    trace = tmp_path / "trace.jsonl"
    lines = [
        encode({"type": "skill_update", "data": {"skill_id": f"r{number % 50}", "name": "R", "code": "x" * 5_000}})
        for number in range(2_000)
    ]
    trace.write_bytes(b"\n".join(lines))
    async with open_stream(server, compression=None, max_queue=4) as stream:
        await server.until(lambda: server.clients)
        playing = asyncio.create_task(replay(server.market, trace, 0, server.drain))
        for _ in range(500):
            await asyncio.sleep(0)
        # 10 MB and a reader that has read nothing: the replay waits for it instead of buffering.
        assert not playing.done()
        assert server.backlog < 4 * 2**20
        received = [await stream.recv(decode=False) for _ in lines]
        assert received == lines
        assert (await playing).messages == 2_000
