"""One connection of the live stream: read, decode, keep the heartbeat, and raise why it ended.

Two tasks run inside `run`. The reader passes on what it decodes and answers pings; the heartbeat
(`heartbeat.Pulse` has its rules) sends ours and drops the connection if none is answered. Neither waits for the
peer to read: what we send is written without waiting, and is bounded (`connection.UNREAD_LIMIT`).
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from marketplace_sync.conf import SyncConfig
from marketplace_sync.protocol.encode import ping_message, pong_message
from marketplace_sync.protocol.events import Change, Ping, Pong
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import DecodeError, Refusal
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.clock import http_date, utc_now
from marketplace_sync.upstream.connection import MarketConnection
from marketplace_sync.upstream.errors import (
    TOKEN_REFUSED_CODES,
    PeerDeadError,
    StreamClosedError,
    TokenRefusedError,
    UpstreamError,
    network_reason,
    quoted,
)
from marketplace_sync.upstream.handshake import hard_limit, header, open_connection
from marketplace_sync.upstream.heartbeat import Due, Pulse

# Seconds that the reader works on waiting messages before the rest of the process gets a turn. In a flood it never
# waits for the socket, so without this limit neither the heartbeat nor any other task would ever run.
TURN_SECONDS = 0.01


# Receives each message that is not a heartbeat: the change, or why it was refused, and the bytes as they came.
Receive = Callable[[Change | Refusal, bytes], None]


class Stream:
    """An open stream. Create it with `open`, `run` it once, and `close` or `abort` it from another task."""

    def __init__(
        self,
        connection: MarketConnection,
        config: SyncConfig,
        *,
        wall: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._config = config
        self._wall = wall
        self._clock = clock
        self._pulse = Pulse(interval=config.heartbeat_interval, timeout=config.pong_timeout, now=clock())
        self._handled = 0
        self._closing = False
        self._running = False
        self._ended = asyncio.Event()
        date = http_date(header(connection.response, "Date"))
        # The server's clock minus ours; zero if the handshake had no `Date`. A precision of one second is enough: it
        # only separates times a day ahead from believable ones.
        self.server_offset = date - wall() if date is not None else timedelta(0)
        # Set when the peer has answered one of our pings; `answered_by` describes the first answer.
        self.answered = asyncio.Event()
        self.answered_by = ""
        connection.on_pong = self._pong

    @classmethod
    async def open(
        cls,
        config: SyncConfig,
        access: Access | None = None,
        *,
        wall: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] | None = None,
    ) -> Self:
        """Connect once, within `connect_timeout`; never try again, and never follow a redirect.

        `access` is shared by the process; by default it is made of the settings. `wall` is our time of day,
        `clock` a monotonic one in seconds (by default the event loop's). Raises `TokenRefusedError` (HTTP 401, 403),
        `RateLimitedError` (429, with its `Retry-After`), `UpstreamTimeoutError`, else `UnreachableError`.
        """
        connection = await open_connection(config, access or Access(config), now=wall)
        return cls(connection, config, wall=wall, clock=clock or asyncio.get_running_loop().time)

    def ping_now(self) -> None:
        """Make `run` begin with a ping. Call it before `run`."""
        self._pulse.hurry(self._clock())

    async def run(self, receive: Receive) -> None:
        """Read until the connection ends, and pass every message but heartbeats to `receive`, in order.

        `receive` must be quick and must not raise: an exception ends the connection, and `run` raises it. `run` returns
        only after `close` was called. Else it raises `PeerDeadError`, `TokenRefusedError` (close code 1008, 4401) or
        `StreamClosedError`, after the last message was passed on.
        """
        self._running = True
        beat = asyncio.create_task(self._beat(), name="stream heartbeat")
        # The connection does not outlive its heartbeat.
        beat.add_done_callback(lambda _: self.abort())
        try:
            end = await self._read(receive)
        finally:
            beat.cancel()
            await asyncio.wait([beat])
            self._ended.set()
        verdict = None if beat.cancelled() else beat.exception()
        if verdict is not None and not (self._closing and isinstance(verdict, UpstreamError)):
            raise verdict
        if not self._closing:
            raise self._error(end) from None

    async def close(self) -> None:
        """End the stream cleanly: `run` passes on what the peer sent before its own close, and returns.

        A peer that has not finished the closing handshake within `CLOSE_WITHIN` is cut off; what has arrived until then
        is passed on.
        """
        self._closing = True
        await self._connection.close()
        if self._running:
            await self._ended.wait()

    def abort(self) -> None:
        """Drop the connection without a closing handshake; `run` then raises, unless `close` was called."""
        self._connection.abort()

    async def _read(self, receive: Receive) -> ConnectionClosed:
        """Read until the last message; return why the connection has ended."""
        turn_ends, server_now = 0.0, self._wall()
        while True:
            try:
                raw, is_text = await self._connection.next_message()
            except ConnectionClosed as end:
                return end
            if self._clock() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = self._clock() + TURN_SECONDS
                server_now = self._wall() + self.server_offset
            event = self._decode(raw, is_text, server_now)
            if event is not None:
                receive(event, raw)
            self._handled += 1

    def _decode(self, raw: bytes, is_text: bool, server_now: datetime) -> Change | Refusal | None:
        """Return the message as an event or as a refusal. Answer or note a heartbeat, and return `None`."""
        # RFC 6455 demands a close on text that is not UTF-8. One bad message is not worth the loss of all that follow:
        # the decoder gets its bytes, and refuses it with its id if that is readable.
        try:
            event = decode_message(
                raw,
                is_text=is_text,
                server_now=server_now,
                max_bytes=self._config.max_message_bytes,
            )
        except DecodeError as error:
            return error.refusal
        match event:
            case Ping():
                self._connection.write(text=pong_message(self._wall()))
                return None
            case Pong():
                self._pong()
                return None
            case _:
                return event

    def _pong(self, payload: bytes | None = None) -> None:
        if self._pulse.pong(payload) and not self.answered_by:
            self.answered_by = "a JSON pong" if payload is None else "a pong frame"
            self.answered.set()

    async def _beat(self) -> None:
        """Send our pings; raise `PeerDeadError` if one has not been answered in time."""
        while True:
            await asyncio.sleep(max(0.0, self._pulse.wake_at - self._clock()))
            due = self._pulse.due(self._clock())
            if due is Due.DEATH:
                await self._catch_up()
                due = self._pulse.due(self._clock())
            if due is Due.DEATH:
                # The done callback drops the connection: a dead peer gets no closing handshake.
                raise PeerDeadError(f"no pong within {self._config.pong_timeout:g} s")
            if due is Due.PING:
                payload = self._pulse.ping(self._clock())
                self._connection.write(text=ping_message(self._wall()), ping=payload)

    async def _catch_up(self) -> None:
        """Let the reader finish what has arrived: a delay of this process is not the peer's silence."""
        arrived = self._connection.arrived
        while self._handled < arrived:  # noqa: ASYNC110 - an event per message would slow the reader
            await asyncio.sleep(0)

    def _error(self, end: ConnectionClosed) -> UpstreamError:
        """Return the error for a connection that ended without our `close`."""
        if self._connection.peer_reads_nothing:
            return PeerDeadError("the peer reads nothing of what we send")
        if end.rcvd is not None:
            code, reason = end.rcvd.code, f": {quoted(end.rcvd.reason)}" if end.rcvd.reason else ""
            if code in TOKEN_REFUSED_CODES:
                return TokenRefusedError(f"the marketplace refuses the token (close code {code}{reason})")
            return StreamClosedError(code, f"the marketplace closed the stream (code {code}{reason})")
        if end.sent is not None:
            code, why = end.sent.code, quoted(end.sent.reason)
            if code == CloseCode.MESSAGE_TOO_BIG:
                why += f"; a message may have {hard_limit(self._config)} bytes"
            return StreamClosedError(code, f"we closed the stream (code {code:d}: {why})")
        why = network_reason(end.__cause__) if end.__cause__ is not None else "end of the connection"
        return StreamClosedError(1006, f"the connection broke without a close: {why}")
