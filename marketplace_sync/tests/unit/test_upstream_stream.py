"""One stream connection: its messages, and the errors with which it ends."""

import asyncio
import struct
from datetime import timedelta
from email.utils import format_datetime

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from marketplace_sync.protocol.events import Change, SkillRecord
from marketplace_sync.protocol.refusals import Code, Refusal
from marketplace_sync.tests.support.upstream_clients import Received, ids, into, open_stream, run_against, until, update
from marketplace_sync.tests.support.upstream_peers import (
    NOW,
    config,
    ws_peer,
)
from marketplace_sync.upstream.errors import (
    StreamClosedError,
    TokenRefusedError,
)
from marketplace_sync.upstream.handshake import hard_limit

# Messages.


async def test_messages_are_passed_on_in_order_with_their_bytes() -> None:
    async def peer(connection: ServerConnection) -> None:
        for number in range(500):
            await connection.send(update(number))

    received, _ = await run_against(peer)
    assert ids(received) == [f"s{n}" for n in range(500)]
    assert received[7].raw == update(7).encode()


async def test_a_message_in_fragments_is_one_message() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1)[i : i + 5] for i in range(0, len(update(1)), 5))
        await connection.send([b"\x00", b"\x01"])
        await connection.send(update(2))

    received, _ = await run_against(peer)
    assert ids(received) == ["s1", "s2"]
    assert received[1].raw == b"\x00\x01"


@pytest.mark.parametrize(
    ("payload", "as_text", "code"),
    [
        (b"not json", True, Code.NOT_JSON),
        (b'{"type":"skill_update","data":{"skill_id":"s","name":"\xff"}}', True, Code.BAD_CHARACTER),
        (b"[" * 100_000, True, None),
        (b"\x00\x01", False, Code.BINARY),
        (update(1).encode(), False, Code.BINARY),
        (update(1, description="x" * 1_048_576).encode(), True, Code.TOO_LARGE),
        (b"", True, Code.NOT_JSON),
    ],
)
async def test_a_bad_message_is_a_refusal_and_the_next_one_is_read(payload: bytes, as_text: bool, code: Code) -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(payload, text=as_text)
        await connection.send(update(2))

    received, fault = await run_against(peer)
    refused, after = received
    assert isinstance(refused.event, Refusal)
    assert code is None or refused.event.code is code
    assert refused.raw == payload
    assert ids([after]) == ["s2"]
    assert isinstance(fault, StreamClosedError) and fault.code == 1000


async def test_a_message_over_the_hard_limit_ends_the_stream_with_its_reason() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        await connection.send(update(2, description="x" * 4 * 2_000))
        await connection.wait_closed()

    received, fault = await run_against(peer, max_message_bytes=2_000)
    assert ids(received) == ["s1"]
    assert isinstance(fault, StreamClosedError)
    assert fault.code == 1009
    assert str(hard_limit(config(max_message_bytes=2_000))) in fault.reason


async def test_a_compressed_message_is_refused() -> None:
    async def peer(connection: ServerConnection) -> None:
        # RSV1 means "compressed", which nobody agreed on.
        connection.transport.write(struct.pack("!BB", 0xC1, 4) + b"\x00\x00\xff\xff")
        await connection.wait_closed()

    _, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError) and fault.code == 1002


async def test_times_are_compared_with_the_servers_clock() -> None:
    ahead = (NOW + timedelta(days=400)).isoformat()

    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1, updated_at=ahead))

    def dated(_: ServerConnection, __: Request, response: Response) -> None:
        del response.headers["Date"]
        response.headers["Date"] = format_datetime(NOW + timedelta(days=400), usegmt=True)

    received: list[Received] = []
    async with ws_peer(peer, process_response=dated) as url:
        stream = await open_stream(url)
        assert stream.server_offset == timedelta(days=400)
        with pytest.raises(StreamClosedError):
            await stream.run(into(received))
    assert isinstance(received[0].event, SkillRecord)
    assert received[0].event.updated is not None


async def test_an_exception_of_receive_ends_the_stream_and_is_raised() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        await connection.wait_closed()

    def broken(event: Change | Refusal, raw: bytes) -> None:
        raise ZeroDivisionError

    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        with pytest.raises(ZeroDivisionError):
            await stream.run(broken)


# Ends.


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4000])
async def test_a_close_by_the_server_has_its_code_and_reason(code: int) -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        await connection.close(code, "so\nlong")

    received, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError)
    assert (fault.code, fault.refused_token, ids(received)) == (code, False, ["s1"])
    assert f"code {code}: so long" in fault.reason


@pytest.mark.parametrize("code", [1008, 4401])
async def test_a_close_code_that_refuses_the_token_is_a_refused_token(code: int) -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.close(code, "expired")

    _, fault = await run_against(peer)
    assert isinstance(fault, TokenRefusedError)
    assert str(code) in fault.reason and "expired" in fault.reason


async def test_a_connection_that_breaks_is_1006() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        connection.transport.abort()

    received, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError) and fault.code == 1006
    assert ids(received) in ([], ["s1"])  # a reset may overtake what was sent


async def test_a_server_that_closes_and_keeps_the_socket_open_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace_sync.upstream.connection.CLOSE_WITHIN", 0.05)

    async def peer(connection: ServerConnection) -> None:
        connection.transport.write(struct.pack("!BBH", 0x88, 2, 1001))
        connection.transport.pause_reading()
        await connection.wait_closed()

    _, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError) and fault.code == 1001


# Close, asked for by us.


async def test_close_passes_on_what_was_received_and_run_returns() -> None:
    sent = 0

    async def peer(connection: ServerConnection) -> None:
        nonlocal sent
        try:
            for number in range(3000):
                await connection.send(update(number))
                sent += 1
            await connection.wait_closed()
        except ConnectionClosed:
            return

    received: list[Received] = []
    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        running = asyncio.create_task(stream.run(into(received)))
        await until(lambda: received)
        await stream.close()
        async with asyncio.timeout(1):
            await running
    assert ids(received) == [f"s{n}" for n in range(len(received))]
    assert sent > 100
    assert len(received) - sent in (0, 1)  # one may have gone out without the peer's knowing


async def test_close_is_bounded_when_the_peer_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace_sync.upstream.connection.CLOSE_WITHIN", 0.05)

    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        connection.transport.pause_reading()
        await connection.wait_closed()

    received: list[Received] = []
    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        running = asyncio.create_task(stream.run(into(received)))
        await until(lambda: received)
        async with asyncio.timeout(0.5):
            await stream.close()
            await running
    assert ids(received) == ["s1"]


async def test_close_before_run_leaves_no_connection() -> None:
    closed = asyncio.Event()

    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.set()

    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        async with asyncio.timeout(1):
            await stream.close()
            await closed.wait()


async def test_abort_ends_run_with_an_error() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        running = asyncio.create_task(stream.run(lambda event, raw: None))
        await asyncio.sleep(0)
        stream.abort()
        with pytest.raises(StreamClosedError):
            await running


async def test_a_cancelled_run_leaves_no_connection_and_no_task() -> None:
    closed = asyncio.Event()

    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.set()

    async with ws_peer(peer) as url:
        stream = await open_stream(url)
        running = asyncio.create_task(stream.run(lambda event, raw: None))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with asyncio.timeout(1):
            await closed.wait()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "stream heartbeat"]
