"""The heartbeat of the stream over a real socket, and the answers to pings."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.tests.support.upstream_clients import (
    Peer,
    Received,
    into,
    open_stream,
    run_against,
    until,
    update,
)
from marketplace_sync.tests.support.upstream_peers import (
    config,
    no_pong_frames,
    ws_peer,
)
from marketplace_sync.upstream.errors import (
    PeerDeadError,
    StreamClosedError,
)
from marketplace_sync.upstream.stream import Stream

PING = '{"type": "ping"}'
PONG = '{"type": "pong"}'

QUICK = {"heartbeat_interval": 0.05, "pong_timeout": 0.05}


async def heard(connection: ServerConnection, reply: Callable[[str], Awaitable[None]]) -> None:
    try:
        while True:
            message = await connection.recv()
            assert isinstance(message, str)
            await reply(message)
    except ConnectionClosed:
        return


async def lives(peer: Peer, **changes: Any) -> bool:
    """Whether the stream still stands after three heartbeats and a time-out."""
    async with ws_peer(peer) as url:
        stream = await open_stream(url, **{**QUICK, **changes})
        running = asyncio.create_task(stream.run(lambda event, raw: None))
        done, _ = await asyncio.wait([running], timeout=0.22)
        stream.abort()
        try:
            await running
        except StreamClosedError:
            return not done
        except PeerDeadError:
            return False
    raise AssertionError("run returned though nobody closed it")


async def test_a_peer_that_answers_with_json_pongs_alone_is_alive() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(message: str) -> None:
            if json.loads(message)["type"] == "ping":
                await connection.send(PONG)

        await heard(connection, reply)

    assert await lives(peer)


async def test_a_peer_that_answers_with_pong_frames_alone_is_alive() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()

    assert await lives(peer)


async def test_a_peer_that_answers_neither_is_dead_in_time_and_gets_no_close_frame() -> None:
    asked: list[str] = []

    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(message: str) -> None:
            asked.append(json.loads(message)["type"])

        await heard(connection, reply)
        assert connection.protocol.close_rcvd is None

    began = asyncio.get_running_loop().time()
    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)
    assert 0.1 <= asyncio.get_running_loop().time() - began < 3
    assert asked == ["ping"]


async def test_a_peer_that_stops_in_the_middle_of_a_message_is_dead_in_time() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)
        for part, text in enumerate(("one", "two", "three")):
            (connection.protocol.send_continuation if part else connection.protocol.send_text)(text.encode(), fin=False)
        connection.send_data()
        await connection.wait_closed()

    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)


async def test_messages_are_no_pongs() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)
        while True:
            await connection.send(update(1))
            await asyncio.sleep(0.005)

    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)


async def test_a_pong_before_the_ping_does_not_count() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)
        await connection.send(PONG)
        await heard(connection, lambda _: asyncio.sleep(0))

    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)


async def test_a_late_pong_does_not_count() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(_: str) -> None:
            await asyncio.sleep(0.15)
            await connection.send(PONG)

        await heard(connection, reply)

    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)


async def test_a_peer_that_reads_nothing_is_dead_in_time() -> None:
    async def peer(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await connection.wait_closed()

    _, fault = await run_against(peer, **QUICK)
    assert isinstance(fault, PeerDeadError)


async def test_a_peer_that_pings_and_reads_no_answers_is_dropped_at_the_limit() -> None:
    """Our answers pile up unread; the heartbeat is half an hour away."""

    async def peer(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        while not connection.transport.is_closing():
            connection.transport.write((b"\x89\x7d" + b"p" * 125) * 500)
            await connection.drain()

    _, fault = await run_against(peer, heartbeat_interval=1800.0)
    assert isinstance(fault, PeerDeadError)
    assert "reads nothing" in fault.reason


async def test_a_json_ping_is_answered() -> None:
    answers: list[str] = []

    async def peer(connection: ServerConnection) -> None:
        await connection.send(PING)
        answers.append(str(await connection.recv()))

    received, _ = await run_against(peer)
    assert json.loads(answers[0]) == {"type": "pong", "timestamp": "2026-03-01T12:00:00.000Z"}
    assert received == []


async def test_a_flood_delays_neither_the_heartbeat_nor_the_answers() -> None:
    answered = asyncio.Event()
    pings = 0

    async def peer(connection: ServerConnection) -> None:
        async def flood() -> None:
            while True:
                for _ in range(50):
                    await connection.send(update(1))
                await asyncio.sleep(0)

        async def reply(message: str) -> None:
            nonlocal pings
            pings += json.loads(message)["type"] == "ping"
            if json.loads(message)["type"] == "pong":
                answered.set()

        flooding = asyncio.create_task(flood())
        await connection.send(PING)
        await heard(connection, reply)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    count = 0

    def receive(event: Change | Refusal, raw: bytes) -> None:
        nonlocal count
        count += 1

    async with ws_peer(peer) as url:
        stream = await open_stream(url, heartbeat_interval=0.03, pong_timeout=3.0)
        running = asyncio.create_task(stream.run(receive))
        await until(lambda: pings >= 3 and answered.is_set() and count > 100)
        await stream.close()
        await running


async def test_in_a_flood_other_tasks_run_every_hundredth_of_a_second() -> None:
    now, turns, count = 0.0, 0, 0
    all_sent = asyncio.Event()

    async def peer(connection: ServerConnection) -> None:
        for _ in range(1000):
            await connection.send(update(1))
        all_sent.set()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def receive(event: Change | Refusal, raw: bytes) -> None:
        nonlocal now, count
        now += 0.001
        count += 1

    async with ws_peer(peer) as url:
        stream = await Stream.open(config(ws_url=url, heartbeat_interval=1800.0), clock=lambda: now)
        await all_sent.wait()
        working = asyncio.create_task(others())
        with pytest.raises(StreamClosedError):
            await stream.run(receive)
        working.cancel()
    assert count == 1000
    assert turns >= 95


async def test_a_delay_of_this_process_is_not_a_dead_peer() -> None:
    """The answer lies in our socket, behind other messages, while this process does nothing for longer than the
    time-out."""
    delayed = False

    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(_: str) -> None:
            nonlocal delayed
            if not delayed:
                for number in range(2000):
                    connection.protocol.send_text(update(number).encode())
                connection.send_data()
            await connection.send(PONG)
            if not delayed:
                delayed = True
                time.sleep(0.08)  # noqa: ASYNC251 - to stop the whole process is the point

        await heard(connection, reply)

    received: list[Received] = []
    async with ws_peer(peer) as url:
        stream = await open_stream(url, heartbeat_interval=0.02, pong_timeout=0.06)
        running = asyncio.create_task(stream.run(into(received)))
        await until(lambda: len(received) == 2000 or running.done())
        await stream.close()
        await running
