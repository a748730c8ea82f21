"""Answer the stream's handshake: limits, token and faults, then an open stream."""

import asyncio
import logging
from collections.abc import Callable
from email.utils import format_datetime
from typing import TYPE_CHECKING

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from marketplace_sync.simulator.http import CHALLENGE, Headers, retry_after
from marketplace_sync.simulator.stream import StreamServer

if TYPE_CHECKING:
    from marketplace_sync.simulator.server import SimulatorServer

# The library logs the request line at DEBUG, with the token. No configuration can reach this logger.
_SILENT = logging.Logger("simulator stream", level=logging.CRITICAL)
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12,
    client_max_window_bits=12,
    # Level 1: half the size in a third of the time. A replay must be faster than the client.
    compress_settings={"memLevel": 5, "level": 1},
)
# The faults that accept a stream only to close it.
_CLOSING = {"close-4401": "token refused", "close-1008": "policy violation", "accept-then-close": ""}


async def open_stream(
    server: "SimulatorServer", raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    reset: Callable[[asyncio.StreamWriter], None],
) -> None:  # fmt: skip
    """Answer a handshake, of which `raw` was received, and serve the stream until it ends."""
    server.connects.append(server.monotonic())
    faults = server.faults
    if faults.take("refuse") is not None:
        reset(writer)
        return
    if (slow := faults.take("slow-handshake")) is not None:
        await asyncio.sleep(slow["seconds"])
    protocol = ServerProtocol(extensions=[_DEFLATE] if server.compress else None, logger=_SILENT)
    protocol.receive_data(raw)
    request = next((event for event in protocol.events_received() if isinstance(event, Request)), None)
    if request is None:
        return
    response = _response(server, protocol, request)
    del response.headers["Date"]
    response.headers["Date"] = format_datetime(server.moment(), usegmt=True)
    protocol.send_response(response)
    stream = StreamServer(
        protocol, writer, faults, heartbeat_interval=server.heartbeat_interval, pong_timeout=server.pong_timeout,
        now=server.moment, heard=server.heard,
    )  # fmt: skip
    stream.flush()
    await stream.drain()
    if response.status_code != 101:
        return
    for name, reason in _CLOSING.items():
        if (closing := faults.take(name)) is not None:
            stream.close(closing["code"], reason)
            await stream.run(reader)
            return
    stream.mute = not faults.is_permanent("mute") and faults.take("mute") is not None
    with server.registered(stream):
        await stream.run(reader)


def _response(server: "SimulatorServer", protocol: ServerProtocol, request: Request) -> Response:
    faults = server.faults
    wait = server.connect_window.admit(server.monotonic())
    if wait is not None:
        return _refusal(protocol, 429, (retry_after(wait, now=server.moment()),))
    if (slow_down := faults.take("ws-429")) is not None:
        header = retry_after(slow_down["retry_after"], now=server.moment(), as_date=slow_down["http_date"])
        return _refusal(protocol, 429, (header,))
    if faults.take("forbidden") is not None:
        return _refusal(protocol, 403)
    headers = {name.lower(): value for name, value in request.headers.raw_items()}
    token = server.variant.ws_token(request.path, headers)
    if faults.take("unauthorized", "/ws") is not None or token != server.token:
        return _refusal(protocol, 401, (CHALLENGE,))
    return protocol.accept(request)


def _refusal(protocol: ServerProtocol, status: int, headers: Headers = ()) -> Response:
    response = protocol.reject(status, "The stream was refused.\n")
    for name, value in headers:
        response.headers[name] = value
    return response
