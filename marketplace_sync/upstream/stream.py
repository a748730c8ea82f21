"""One connection of the live stream: reads, decodes, keeps the heartbeat, and says why it ended.

Two tasks live while `run` does. The reader hands over what it decodes and answers pings; the heartbeat
(`heartbeat.Pulse` has its rules) sends ours and drops the connection when none is answered. Neither waits for the
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

# How long the reader may go on while messages wait, before the rest of the process gets a turn. A flood never
# lets it wait for the socket, and without this neither the heartbeat nor a page would ever run.
TURN_SECONDS = 0.01


# Receives each message that is not a heartbeat: the change, or why it was refused, and the bytes as they came.
Receive = Callable[[Change | Refusal, bytes], None]


class Stream:
    """An open stream. Made by `open`; `run` it once, and `close` or `abort` it from another task."""

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
        # The server's clock minus ours; zero where the handshake had no `Date`. A second's precision will do: it
        # only tells times a day ahead from believable ones.
        self.server_offset = date - wall() if date is not None else timedelta(0)
        # Set when the peer has answered a ping of ours, and what answered the first.
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
        """Connects once, within `connect_timeout`; never tries again and never follows a redirect.

        `access` is what the process shares, made of the settings where it is not given; `wall` is our time of day,
        `clock` a monotonic one in seconds (the event loop's). Raises `TokenRefusedError` (HTTP 401, 403),
        `RateLimitedError` (429, with its `Retry-After`), `UpstreamTimeoutError`, else `UnreachableError`.
        """
        connection = await open_connection(config, access or Access(config), now=wall)
        return cls(connection, config, wall=wall, clock=clock or asyncio.get_running_loop().time)

    def ping_now(self) -> None:
        """Have `run` send its first ping at once. To be called before it."""
        self._pulse.hurry(self._clock())

    async def run(self, receive: Receive) -> None:
        """Reads until the connection ends, handing every message but heartbeats to `receive`, in order.

        `receive` must be quick and must not raise: what it raises ends the connection and comes out here. Returns
        only after `close` was asked for. Raises `PeerDeadError`, `TokenRefusedError` (close code 1008, 4401) or
        `StreamClosedError`, after the last message received has been handed over.
        """
        self._running = True
        beat = asyncio.create_task(self._beat(), name="stream heartbeat")
        # Without a heartbeat there is no reading on: whatever ends it ends the connection.
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
            raise self._fault(end) from None

    async def close(self) -> None:
        """Ends the stream cleanly: `run` hands over what the peer sent before its own close, and returns.

        Bounded: a peer that has not finished its side within a second is cut off, and what has arrived until
        then is handed over.
        """
        self._closing = True
        await self._connection.close()
        if self._running:
            await self._ended.wait()

    def abort(self) -> None:
        """Drops the connection at once; `run` then raises, unless `close` was asked for."""
        self._connection.abort()

    async def _read(self, receive: Receive) -> ConnectionClosed:
        """Reads until there is nothing left to read; gives the library's word on why."""
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
        """The message as an event or as a refusal; `None` when it was a heartbeat, which is dealt with here."""
        # RFC 6455 would have us close on text that is not UTF-8. One bad message is not worth all that follow: its
        # bytes are left to the decoder, which refuses it with the id where it can be read.
        try:
            event = decode_message(
                raw,
                is_text=is_text,
                server_now=server_now,
                max_bytes=self._config.max_message_bytes,
            )
        except DecodeError as fault:
            return fault.refusal
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
        """Sends our pings; drops the connection when one has not been answered in time."""
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
        """Lets the reader finish what has arrived: when this process was held up, that is not the peer's silence."""
        arrived = self._connection.arrived
        while self._handled < arrived:  # noqa: ASYNC110 - the reader is at work, an event a message would slow it
            await asyncio.sleep(0)

    def _fault(self, end: ConnectionClosed) -> UpstreamError:
        """Why the connection ended, when it was not our wish."""
        if self._connection.peer_reads_nothing:
            return PeerDeadError("the peer reads nothing of what we send")
        if end.rcvd is not None:
            code, said = end.rcvd.code, f": {quoted(end.rcvd.reason)}" if end.rcvd.reason else ""
            if code in TOKEN_REFUSED_CODES:
                return TokenRefusedError(f"the marketplace refuses the token (close code {code}{said})")
            return StreamClosedError(code, f"the marketplace closed the stream (code {code}{said})")
        if end.sent is not None:
            code, why = end.sent.code, quoted(end.sent.reason)
            if code == CloseCode.MESSAGE_TOO_BIG:
                why += f"; a message may have {hard_limit(self._config)} bytes"
            return StreamClosedError(code, f"we closed the stream (code {code:d}: {why})")
        why = network_reason(end.__cause__) if end.__cause__ is not None else "end of the connection"
        return StreamClosedError(1006, f"the connection broke without a close: {why}")
