# ruff: noqa: T201
"""The clients of `feed_fanout.py`: COUNT PORT KEY.

They print `ready`, read until the feed number that they get on stdin, and print what they received as JSON.
"""

import asyncio
import base64
import json
import secrets
import socket
import sys
import time
from array import array
from contextlib import suppress
from datetime import datetime

# In seconds: after the last change, and for each client to connect.
PATIENCE = 60.0
CONNECTING = 50


class Client(asyncio.Protocol):
    """A WebSocket client that costs little, since the server is measured. All share `tally`."""

    def __init__(self, tally: "Tally", request: bytes) -> None:
        self._tally = tally
        self._request = request
        self._unread = b""
        self._shaken = False
        self.seq = 0
        self.ready = asyncio.Event()
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        self.ended = True

    def data_received(self, data: bytes) -> None:
        data = self._unread + data
        start = 0
        if not self._shaken:
            start = data.find(b"\r\n\r\n") + 4
            if start < 4:
                self._unread = data
                return
            self._shaken = True
        while len(data) >= start + 2:
            size, body = data[start + 1], start + 2
            if size == 126:
                size, body = int.from_bytes(data[body : body + 2]), body + 2
            elif size == 127:
                size, body = int.from_bytes(data[body : body + 8]), body + 8
            if len(data) < body + size:
                break
            self._frame(data[start] & 15, data[body : body + size])
            start = body + size
        self._unread = data[start:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            self.seq = self._tally.read(self.seq, payload)
            self.ready.set()
        elif opcode == 9:
            # A client masks its frames; with a mask of zeros the payload stays as it is.
            self._transport.write(bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload)

    def close(self) -> None:
        self._transport.abort()


class Tally:
    """The counts and latencies of what all clients received."""

    def __init__(self) -> None:
        self.messages = self.received = self.missed = 0
        self.latencies = array("d")
        self.grown = asyncio.Event()
        self._read: dict[bytes, tuple[str, list[tuple[int, float]], int]] = {}

    def read(self, seq: int, payload: bytes) -> int:
        """Count one message to a client that has reached `seq`, and return what it has reached then."""
        now = time.time()
        if payload not in self._read:
            if len(self._read) > 100:
                self._read.clear()
            message = json.loads(payload)
            changes = [
                (change["seq"], datetime.fromisoformat(change["at"]).timestamp())
                for change in message.get("changes", ())
            ]
            self._read[payload] = message["type"], changes, message.get("seq", 0)
        kind, changes, reached = self._read[payload]
        if kind == "ready":
            return reached
        self.messages += 1
        for number, at in changes:
            self.received += 1
            self.latencies.append((now - at) * 1000)
            self.missed += number != seq + 1
            seq = number
        self.grown.set()
        return max(seq, reached)


async def clients(count: int, port: int, key: str) -> None:
    loop, tally = asyncio.get_running_loop(), Tally()

    def request(path: str) -> bytes:
        nonce = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = (
            f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {nonce}", "Sec-WebSocket-Version: 13", f"Authorization: Bearer {key}", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode()

    async def one() -> Client:
        _, client = await loop.create_connection(lambda: Client(tally, request("/ws/changes/")), "127.0.0.1", port)
        async with asyncio.timeout(PATIENCE):
            await client.ready.wait()
        return client

    everyone: list[Client] = []
    while len(everyone) < count:
        everyone += await asyncio.gather(*(one() for _ in range(min(CONNECTING, count - len(everyone)))))
    stalled = socket.create_connection(("127.0.0.1", port))
    stalled.sendall(request("/ws/changes/?after=0"))
    print("ready", flush=True)

    last = int(await asyncio.to_thread(sys.stdin.readline))
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while any(client.seq < last for client in everyone):
                tally.grown.clear()
                await tally.grown.wait()
    # Out of order, repeated or omitted; never received; and disconnected clients.
    missed = tally.missed + sum(last - client.seq for client in everyone) + sum(client.ended for client in everyone)
    for client in everyone:
        client.close()
    latencies = sorted(tally.latencies) or [0.0]
    result = {
        "messages": tally.messages,
        "received": tally.received,
        "missed": missed,
        "ms": [round(latencies[min(int(len(latencies) * share), len(latencies) - 1)]) for share in (0.5, 0.99, 1)],
        "stalled": await asyncio.to_thread(end_of, stalled),
    }
    print(json.dumps(result), flush=True)


def end_of(connection: socket.socket) -> str:
    """Return what happened to a connection from which nothing was read until now."""
    received, end = 0, b""
    connection.settimeout(5)
    try:
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
            end = (end + chunk)[-200:]
    except TimeoutError:
        return "still there"
    except ConnectionError:
        pass
    ending = "closed with 4429" if b"\x11\x4d" in end else "cut off"
    return f"{ending}, {received / 2**20:.1f} MiB were under way"


if __name__ == "__main__":
    asyncio.run(clients(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
