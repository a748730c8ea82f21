"""One open WebSocket connection: framing by `websockets`' sans-I/O protocol, bounded I/O by us.

`ClientProtocol` turns bytes into frames and back. It answers ping frames, echoes the close frame, and closes with code
1009 on a message of more than `max_size` bytes. `MarketConnection` moves those bytes between it and the socket. The
library's own asyncio connection does not fit: it decodes text frames, does not report pong frames, and waits for
the peer when it writes. Its queue also takes more time per message than the parsing of the frame.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State

# The closing handshake, whichever side begins it: seconds until the socket is closed on a peer that does not finish it.
CLOSE_WITHIN = 1.0
# Our pings, our pongs and the answers to ping frames that the peer has not read. At 100 bytes per pong, such a peer has
# ignored ten thousand of them; honest peers leave none unread.
UNREAD_LIMIT = 1_048_576
# Messages read ahead before the socket is paused; each may have HARD_LIMIT_FACTOR MiB.
READ_AHEAD = 4

# Size of the kernel's receive buffer. By default it grows to 6 MiB, and in a flood a pong waits behind all of it: with
# messages of 80 bytes for four seconds. This size still carries 2 MB/s over a line with a round trip of 100 ms.
RECEIVE_BUFFER_BYTES = 256 * 1024


class MarketConnection(asyncio.Protocol):
    """A WebSocket connection. It reports which messages were text, reports pong frames, and writes without waiting.

    Call `handshake` once; then `next_message` until it raises, and `write`, `close` or `abort` from any task.
    """

    def __init__(self, protocol: ClientProtocol) -> None:
        self.response: Response | None = None  # to the handshake
        self.on_pong: Callable[[bytes], None] | None = None  # called with the payload of each pong frame
        self.arrived = 0  # whole messages received, read or not
        self.peer_reads_nothing = False  # set when the connection was dropped because of UNREAD_LIMIT
        self.socket_error: Exception | None = None  # what ended the socket; `None`: an end of file, or still open
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._responded = asyncio.Event()
        self._lost = asyncio.Event()
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._more = asyncio.Event()
        self._partial = bytearray()  # of a message that comes in several frames
        self._is_text = False
        self._reading_paused = False
        self._close_timer: asyncio.TimerHandle | None = None
        self._connected = False

    async def handshake(self, headers: dict[str, str]) -> None:
        """Send the opening request with these headers added, and wait for the answer.

        Raises `websockets.exceptions.InvalidHandshake`; `response` is then the answer, if there was one.
        """
        request = self._protocol.connect()
        request.headers.update(headers)
        self._protocol.send_request(request)
        self._flush()
        await self._responded.wait()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    async def next_message(self) -> tuple[bytes, bool]:
        """Return the next message's bytes, and whether it was text. Raises `ConnectionClosed` after the last."""
        while not self._messages:
            if self._reading_paused:
                self._reading_paused = False
                self._transport.resume_reading()
            if self._lost.is_set():
                raise self._end()
            self._more.clear()
            await self._more.wait()
        return self._messages.popleft()

    def write(self, *, text: str | None = None, ping: bytes | None = None) -> None:
        """Send a text message and a ping frame, where given, without waiting. Do nothing once it is closing."""
        if self._protocol.state is not State.OPEN or self._transport.is_closing():
            return
        if text is not None:
            self._protocol.send_text(text.encode())
        if ping is not None:
            self._protocol.send_ping(ping)
        self._flush()
        self._bound_unread()

    async def close(self) -> None:
        """Do the closing handshake, and wait until the socket is closed: at most `CLOSE_WITHIN` seconds."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._limit_closing()
        await self._lost.wait()

    def abort(self) -> None:
        """Drop the connection without a closing handshake; do nothing if it is closed."""
        if not self._lost.is_set():  # asyncio raises for a transport that was closed while it had data to write
            self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connected = True
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if not self._connected:
            return  # a server behind a proxy that sends data before our request, while TLS is being set up
        self._protocol.receive_data(data)
        self._flush()
        self._handle_events()
        # The answers to ping frames have just been written, whether or not the peer reads them.
        self._bound_unread()
        if self._protocol.close_expected():
            self._limit_closing()

    def eof_received(self) -> None:
        if not self._connected:
            return
        self._protocol.receive_eof()
        self._flush()
        # An answer to the handshake without Content-Length ends here.
        self._handle_events()

    def connection_lost(self, exc: Exception | None) -> None:
        self.socket_error = exc
        self._protocol.receive_eof()
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._lost.set()
        self._responded.set()
        self._more.set()

    def _handle_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._handle_frame(event)
            elif isinstance(event, Response):
                self.response = event
                self._responded.set()

    def _handle_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            self._is_text = opcode is Opcode.TEXT
            self._take(frame)
        elif opcode is Opcode.CONT:
            self._take(frame)
        elif opcode is Opcode.PONG and self.on_pong is not None:
            self.on_pong(bytes(frame.data))

    def _take(self, frame: Frame) -> None:
        """Queue the message that this frame ends; pause the socket while more than READ_AHEAD messages wait."""
        if not frame.fin or self._partial:
            self._partial += frame.data
            if not frame.fin:
                return
            raw = bytes(self._partial)
            self._partial.clear()
        else:
            raw = bytes(frame.data)
        self.arrived += 1
        self._messages.append((raw, self._is_text))
        self._more.set()
        if len(self._messages) > READ_AHEAD and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _flush(self) -> None:
        """Write what the protocol wants to send. Empty bytes mean the end of the stream, after a failed handshake."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                with contextlib.suppress(OSError, RuntimeError):
                    self._transport.write_eof()
            else:  # TLS has no half-closed connections
                self._transport.close()

    def _bound_unread(self) -> None:
        if self._transport.get_write_buffer_size() > UNREAD_LIMIT:
            self.peer_reads_nothing = True
            self.abort()

    def _limit_closing(self) -> None:
        """Drop the connection in `CLOSE_WITHIN` seconds. The library waits for the peer without a limit."""
        if self._close_timer is None:
            self._close_timer = self._loop.call_later(CLOSE_WITHIN, self.abort)

    def _end(self) -> ConnectionClosed:
        """Return why the connection has ended; its cause is the socket's error, else the protocol's."""
        end = self._protocol.close_exc
        if self.socket_error is not None:
            end.__cause__ = self.socket_error
        return end
