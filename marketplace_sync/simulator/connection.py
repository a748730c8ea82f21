"""Serve one TCP connection: HTTP/1.1 with keep-alive until it ends or becomes a stream, with faults in its bytes."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import replace
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

from marketplace_sync.simulator.handshake import open_stream
from marketplace_sync.simulator.http import Answer, HttpRequest, error, too_many

if TYPE_CHECKING:
    from marketplace_sync.simulator.server import SimulatorServer

MAX_BODY_BYTES = 64 * 1024
# The number of pieces into which slow-body cuts a body.
SLOW_PIECES = 10


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a TCP reset, as when a machine fails."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ClientConnection:
    """Serves one accepted socket."""

    def __init__(
        self, server: "SimulatorServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:  # fmt: skip
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        # What the client sent since its last answered request. A handshake is handed over unchanged.
        self._raw = b""

    async def serve(self) -> None:
        """Serve until either side ends it. Raises nothing that the network or the peer can cause."""
        try:
            with contextlib.suppress(ConnectionError):
                while await self._serve_one():
                    pass
        finally:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

    async def _serve_one(self) -> bool:
        """Serve one request. Return whether the connection continues."""
        try:
            request = await self._request()
        except h11.RemoteProtocolError as problem:
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                await self._send(error(problem.error_status_hint, "bad_request", "That is not HTTP/1.1."), close=True)
            return False
        if request is None:
            return False
        is_stream = request.target.partition("?")[0] == self._server.variant.ws_path
        if is_stream and request.headers.get("upgrade", "").lower() == "websocket":
            await open_stream(self._server, self._raw, self._reader, self._writer, reset)
            return False
        if not await self._respond(request):
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._raw = bytes(self._http.trailing_data[0])
        self._http.start_next_cycle()
        return True

    async def _request(self) -> HttpRequest | None:
        """Return the next request, or `None` when the client has closed. Raises `h11.RemoteProtocolError`."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(65_536)
                self._http.receive_data(data)
                self._raw += data
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    raise h11.RemoteProtocolError("body too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return HttpRequest(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body))
            else:
                return None

    async def _respond(self, request: HttpRequest) -> bool:
        server, target = self._server, request.target
        if server.faults.take("http-away", target) is not None:
            server.log_request(request.method, target, 0)
            reset(self._writer)
            return False
        if server.on_request is not None:
            await server.on_request(target)
        answer = self._answer(request)
        if request.method == "HEAD":
            answer = replace(answer, body=b"")
        if server.faults.take("truncated-json", target) is not None:
            answer = replace(answer, body=answer.body[: len(answer.body) // 2])
        server.log_request(request.method, target, answer.status)
        if server.faults.take("reset-mid-body", target) is not None:
            head, body, _ = self._bytes(answer, close=False)
            self._writer.write(head + body[: len(body) // 2])
            await self._writer.drain()
            reset(self._writer)
            return False
        if (slow := server.faults.take("slow-body", target)) is not None:
            await self._trickle(answer, slow["seconds"])
        else:
            await self._send(answer)
        return True

    def _answer(self, request: HttpRequest) -> Answer:
        server = self._server
        if (broken := server.api.fault(request)) is not None:
            return broken
        path = request.target.partition("?")[0]
        if path == server.variant.ws_path:
            return error(426, "upgrade_required", "This is a WebSocket.", (("Upgrade", "websocket"),))
        # A health check needs no token.
        if path == server.variant.health:
            return server.api.answer(request)
        if not server.api.authorized(request):
            return server.api.unauthorized()
        wait = server.request_window.admit(server.monotonic())
        if wait is not None:
            return too_many(wait, now=server.moment())
        return server.api.answer(request)

    def _bytes(self, answer: Answer, *, close: bool) -> tuple[bytes, bytes, bytes]:
        """Return head, body and end of an answer as bytes."""
        headers = [
            ("Date", format_datetime(self._server.moment(), usegmt=True)),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers,
            *([("Connection", "close")] if close else []),
        ]
        reason = HTTPStatus(answer.status).phrase
        head = h11.Response(status_code=answer.status, headers=headers, reason=reason)
        return (
            self._http.send(head) or b"",
            self._http.send(h11.Data(data=answer.body)) or b"",
            self._http.send(h11.EndOfMessage()) or b"",
        )

    async def _send(self, answer: Answer, *, close: bool = False) -> None:
        self._writer.write(b"".join(self._bytes(answer, close=close)))
        await self._writer.drain()

    async def _trickle(self, answer: Answer, seconds: float) -> None:
        head, body, end = self._bytes(answer, close=False)
        self._writer.write(head)
        step = max(1, -(-len(body) // SLOW_PIECES))
        for start in range(0, len(body), step):
            await asyncio.sleep(seconds / SLOW_PIECES)
            self._writer.write(body[start : start + step])
            await self._writer.drain()
        self._writer.write(end)
