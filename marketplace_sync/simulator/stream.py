"""Serve one WebSocket client of the marketplace, from the accepted handshake to the closed socket.

Built on the sans-I/O protocol, so that a mute server can keep its socket open and send nothing at all.
"""

import asyncio
import json
import struct
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.wire import encode, write_time

# A client that is this far behind is disconnected; a replay waits long before that.
MAX_BACKLOG_BYTES = 64 * 2**20
# asyncio's default of 64 KiB would pause a full-speed replay every 40 messages.
HIGH_WATER_BYTES = 2**20
# Beyond this rate to one client, messages are sent uncompressed, which RFC 7692 (6) allows per message: compression
# costs as much as everything else in a replay at full speed.
MAX_COMPRESSED_PER_SECOND = 1_000
# The time for the client's half of the closing handshake, in seconds.
CLOSE_TIMEOUT = 2.0


def text_frame(payload: bytes) -> bytes:
    """Return a whole, uncompressed text frame as a server sends it (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x81, size) + payload
    if size < 65_536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


class StreamServer:
    """Sends messages to one client and answers its pings.

    `mute`: this stream sends nothing from now on (the fault mute may also affect all streams).
    `heard` counts what the clients of a server sent, by `type`, and as "ping frame" and "pong frame".
    """

    def __init__(
        self, protocol: ServerProtocol, writer: asyncio.StreamWriter, faults: FaultSet, *,
        heartbeat_interval: float, pong_timeout: float, now: Callable[[], datetime], heard: Counter[str],
    ) -> None:  # fmt: skip
        self.mute = False
        self._protocol = protocol
        self.writer = writer
        self._faults = faults
        self._interval = heartbeat_interval
        self._pong_timeout = pong_timeout
        self._now = now
        self._heard = heard
        self._sign_of_life = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Frames of one turn of the event loop are sent in one write: 20,000 system calls per second take a whole core.
        self._out = bytearray()
        self._second = 0
        self._sent_this_second = 0
        writer.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    @property
    def silent(self) -> bool:
        return self.mute or self._faults.is_permanent("mute")

    def send_text(self, payload: bytes) -> None:
        """Send one text frame with these bytes, UTF-8 or not. Does nothing on a stream that is silent or closing."""
        if self.silent or self._protocol.state is not State.OPEN:
            return
        if self._too_fast_to_compress():
            self._queue(text_frame(payload))
        else:
            self._protocol.send_text(payload)
            self.flush()

    def send_binary(self, payload: bytes) -> None:
        if not self.silent and self._protocol.state is State.OPEN:
            self._protocol.send_binary(payload)
            self.flush()

    def send_bytes(self, data: bytes) -> None:
        """Write bytes to the socket as they are, whether a frame or not."""
        if not self.silent:
            self._queue(data)

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; `run` ends when the client has answered, or after `CLOSE_TIMEOUT`."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self.flush()
            self._write()
            self._loop.call_later(CLOSE_TIMEOUT, self.writer.transport.abort)

    def flush(self) -> None:
        """Queue what the protocol has to send."""
        for chunk in self._protocol.data_to_send():
            self._queue(chunk)

    async def drain(self) -> None:
        """Wait until the client has read enough, or is gone."""
        self._write()
        try:
            await self.writer.drain()
        except ConnectionError:
            return

    def _too_fast_to_compress(self) -> bool:
        second = int(self._loop.time())
        if second != self._second:
            self._second, self._sent_this_second = second, 0
        self._sent_this_second += 1
        return self._sent_this_second > MAX_COMPRESSED_PER_SECOND

    def _queue(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._write)
        self._out += data

    def _write(self) -> None:
        transport = self.writer.transport
        if self._out and not transport.is_closing():
            transport.write(bytes(self._out))
            if transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
                transport.abort()
        self._out.clear()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Serve until either side has closed, or the client answers no ping."""
        async with asyncio.TaskGroup() as group:
            heartbeat = group.create_task(self._heartbeat(), name="simulator heartbeat")
            await self._read(reader)
            self._write()
            heartbeat.cancel()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                data = await reader.read(65_536)
            except ConnectionError:
                return
            if not data:
                return
            self._sign_of_life.set()
            self._protocol.receive_data(data)
            frames = self._protocol.events_received()
            if self.silent:
                self._protocol.data_to_send()
                continue
            for frame in frames:
                if isinstance(frame, Frame):
                    self._hear(frame)
            self.flush()
            if self._protocol.eof_sent:
                return

    def _hear(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PING or frame.opcode is Opcode.PONG:
            # The protocol has answered a ping frame already.
            self._heard[f"{frame.opcode.name.lower()} frame"] += 1
        if frame.opcode is not Opcode.TEXT:
            return
        try:
            message = json.loads(bytes(frame.data))
        except ValueError:
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        self._heard[str(kind)] += 1
        if kind == "ping":
            self._send_heartbeat("pong")

    def _send_heartbeat(self, kind: str) -> None:
        self.send_text(encode({"type": kind, "timestamp": write_time(self._now())}))

    async def _heartbeat(self) -> None:
        if not self._interval:
            return
        while True:
            await asyncio.sleep(self._interval)
            self._sign_of_life.clear()
            self._send_heartbeat("ping")
            try:
                await asyncio.wait_for(self._sign_of_life.wait(), self._pong_timeout)
            except TimeoutError:
                # If our ping still waits to be sent, the client is slow, not dead.
                if not self.silent and not self.writer.transport.get_write_buffer_size():
                    self.writer.transport.abort()
                    return
