"""One stream connection: what is handed over, what keeps it alive, and what is said when it ends."""

import asyncio
import json
import struct
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from marketplace_sync.protocol.events import Change, SkillRecord
from marketplace_sync.protocol.refusals import Code, Refusal
from marketplace_sync.tests.support.upstream_peers import (
    NOW,
    TOKEN,
    ScriptedHttp,
    answer,
    config,
    no_pong_frames,
    ws_peer,
)
from marketplace_sync.upstream.errors import (
    PeerDeadError,
    RateLimitedError,
    StreamClosedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from marketplace_sync.upstream.handshake import hard_limit, with_token
from marketplace_sync.upstream.stream import Receive, Stream

PING = '{"type": "ping"}'
PONG = '{"type": "pong"}'

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
    """What was handed over, and the fault that the stream ended with."""
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


# The handshake.


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("wss://h/ws", "wss://h/ws?token=t%2F+"),
        ("wss://h/ws?a=1&b=%20", "wss://h/ws?a=1&b=%20&token=t%2F+"),
        ("wss://h/ws?token=old&a=1#f", "wss://h/ws?a=1&token=t%2F+"),
        ("ws://h", "ws://h?token=t%2F+"),
    ],
)
def test_the_token_joins_the_other_parameters(given: str, made: str) -> None:
    assert with_token(given, "t/ ") == made.replace("+", "%20")


async def test_the_token_arrives_unharmed_and_no_compression_is_offered() -> None:
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


@pytest.mark.parametrize(("said", "kind", "text"), HANDSHAKES)
async def test_a_handshake_that_fails_says_whose_fault_it_is(said: bytes, kind: type[UpstreamError], text: str) -> None:
    async with ScriptedHttp(said) as server:
        with pytest.raises(kind, match=text) as caught:
            await open_stream(server.url.replace("http", "ws"))
    assert caught.value.refused_token is (kind is TokenRefusedError)
    assert len(server.asked) == 1


@pytest.mark.parametrize("as_date", [False, True])
async def test_a_429_at_the_handshake_tells_how_long_to_wait(as_date: bool) -> None:
    server_time = NOW + timedelta(days=900)
    when = format_datetime(server_time + timedelta(seconds=7), usegmt=True) if as_date else "7"
    said = answer(429, b"", f"Retry-After: {when}", f"Date: {format_datetime(server_time, usegmt=True)}")
    async with ScriptedHttp(said) as server:
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


# Messages.


async def test_messages_are_handed_over_in_order_as_they_came() -> None:
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
async def test_a_bad_message_is_a_refusal_and_costs_nothing_else(payload: bytes, as_text: bool, code: Code) -> None:
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


async def test_a_message_past_the_hard_limit_ends_the_stream_and_says_so() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        await connection.send(update(2, description="x" * 4 * 2_000))
        await connection.wait_closed()

    received, fault = await run_against(peer, max_message_bytes=2_000)
    assert ids(received) == ["s1"]
    assert isinstance(fault, StreamClosedError)
    assert fault.code == 1009
    assert str(hard_limit(config(max_message_bytes=2_000))) in fault.reason


async def test_a_packed_bomb_is_not_inflated() -> None:
    async def peer(connection: ServerConnection) -> None:
        # RSV1 says "compressed", which nobody agreed on.
        connection.transport.write(struct.pack("!BB", 0xC1, 4) + b"\x00\x00\xff\xff")
        await connection.wait_closed()

    _, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError) and fault.code == 1002


async def test_times_are_believed_by_the_servers_clock() -> None:
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


async def test_what_receive_raises_ends_the_stream_and_comes_out() -> None:
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
async def test_a_close_by_the_server_is_told_with_code_and_reason(code: int) -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.send(update(1))
        await connection.close(code, "so\nlong")

    received, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError)
    assert (fault.code, fault.refused_token, ids(received)) == (code, False, ["s1"])
    assert f"code {code}: so long" in fault.reason


@pytest.mark.parametrize("code", [1008, 4401])
async def test_a_close_that_refuses_the_token_is_one(code: int) -> None:
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


async def test_a_server_that_says_goodbye_and_stays_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace_sync.upstream.connection.CLOSE_WITHIN", 0.05)

    async def peer(connection: ServerConnection) -> None:
        connection.transport.write(struct.pack("!BBH", 0x88, 2, 1001))
        connection.transport.pause_reading()
        await connection.wait_closed()

    _, fault = await run_against(peer)
    assert isinstance(fault, StreamClosedError) and fault.code == 1001


# Close, asked for by us.


async def test_close_hands_over_what_was_received_and_run_returns() -> None:
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


async def test_abort_ends_run_with_a_fault() -> None:
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


# The heartbeat, over a real socket.

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


async def test_a_peer_that_answers_by_json_alone_lives() -> None:
    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(message: str) -> None:
            if json.loads(message)["type"] == "ping":
                await connection.send(PONG)

        await heard(connection, reply)

    assert await lives(peer)


async def test_a_peer_that_answers_by_frame_alone_lives() -> None:
    async def peer(connection: ServerConnection) -> None:
        await connection.wait_closed()

    assert await lives(peer)


async def test_a_peer_that_answers_neither_is_dead_in_time_and_gets_no_goodbye() -> None:
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


async def test_a_peer_that_dies_in_the_middle_of_a_message_is_dead_in_time() -> None:
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


async def test_a_peer_that_asks_and_never_listens_is_cut_off_before_memory_runs_out() -> None:
    """Our answers pile up unread; the heartbeat is half an hour away."""

    async def peer(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        while not connection.transport.is_closing():
            connection.transport.write((b"\x89\x7d" + b"p" * 125) * 500)
            await connection.drain()

    _, fault = await run_against(peer, heartbeat_interval=1800.0)
    assert isinstance(fault, PeerDeadError)
    assert "reads nothing" in fault.reason


async def test_a_json_ping_is_answered_at_once() -> None:
    answers: list[str] = []

    async def peer(connection: ServerConnection) -> None:
        await connection.send(PING)
        answers.append(str(await connection.recv()))

    received, _ = await run_against(peer)
    assert json.loads(answers[0]) == {"type": "pong", "timestamp": "2026-03-01T12:00:00.000Z"}
    assert received == []


async def test_a_flood_starves_neither_the_heartbeat_nor_the_answers() -> None:
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


async def test_a_flood_gives_way_every_hundredth_of_a_second() -> None:
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


async def test_a_held_up_process_does_not_blame_the_peer() -> None:
    """The answer lies in our socket, behind other messages, while this process does nothing for longer than the
    time-out."""
    held_up = False

    async def peer(connection: ServerConnection) -> None:
        no_pong_frames(connection)

        async def reply(_: str) -> None:
            nonlocal held_up
            if not held_up:
                for number in range(2000):
                    connection.protocol.send_text(update(number).encode())
                connection.send_data()
            await connection.send(PONG)
            if not held_up:
                held_up = True
                time.sleep(0.08)  # noqa: ASYNC251 - to stop the whole process is the point

        await heard(connection, reply)

    received: list[Received] = []
    async with ws_peer(peer) as url:
        stream = await open_stream(url, heartbeat_interval=0.02, pong_timeout=0.06)
        running = asyncio.create_task(stream.run(into(received)))
        await until(lambda: len(received) == 2000 or running.done())
        await stream.close()
        await running
