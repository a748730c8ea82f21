"""Fix two missing responses of uvicorn 0.54 to invalid or slow request heads. `asgi.py` installs the fixes.

- A WebSocket handshake with a line over 8 KiB or more than 128 headers: the library has the response (414 or 431)
  ready, but uvicorn neither writes it nor closes the connection.
- A head that never ends: uvicorn has no time limit, so such a connection stays open as long as the client wants. h11
  limits the bytes of a head; `HEAD_SECONDS` limits its time.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# From the connection, or from the first byte of a later head, to the end of the head. nginx sends a head in one piece.
HEAD_SECONDS = 20.0
_TIMER = "_head_timer"

_ws_data_received = WebSocketsSansIOProtocol.data_received
_connection_made = H11Protocol.connection_made
_connection_lost = H11Protocol.connection_lost
_data_received = H11Protocol.data_received


def install() -> None:
    """Replace uvicorn's methods by the fixed ones. A second call changes nothing."""
    WebSocketsSansIOProtocol.data_received = _answer_refused_handshake  # type: ignore[method-assign]
    H11Protocol.connection_made = _start_head  # type: ignore[method-assign]
    H11Protocol.connection_lost = _forget_head  # type: ignore[method-assign]
    H11Protocol.data_received = _watch_head  # type: ignore[method-assign]


def _answer_refused_handshake(self: WebSocketsSansIOProtocol, data: bytes) -> None:
    _ws_data_received(self, data)
    if self.handshake_initiated or self.conn.handshake_exc is None or self.transport.is_closing():
        return
    self.handshake_complete = self.close_sent = True
    answer = b"".join(self.conn.data_to_send())
    self.transport.write(answer or _plain_answer(HTTPStatus.BAD_REQUEST))
    self.transport.close()


def _start_head(self: H11Protocol, transport: Any) -> None:
    _connection_made(self, transport)
    _set_timer(self)


def _watch_head(self: H11Protocol, data: bytes) -> None:
    _data_received(self, data)
    # IDLE: the head of the next request is not complete. A running timer goes on, so single bytes do not extend it.
    if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
        _stop_timer(self)
    elif getattr(self, _TIMER, None) is None:
        _set_timer(self)


def _forget_head(self: H11Protocol, exc: Exception | None) -> None:
    _stop_timer(self)
    _connection_lost(self, exc)


def _set_timer(self: H11Protocol) -> None:
    setattr(self, _TIMER, asyncio.get_running_loop().call_later(HEAD_SECONDS, _give_up, self))


def _stop_timer(self: H11Protocol) -> None:
    timer = getattr(self, _TIMER, None)
    if timer is not None:
        timer.cancel()
        setattr(self, _TIMER, None)


def _give_up(self: H11Protocol) -> None:
    setattr(self, _TIMER, None)
    if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
        return
    # A connection without any data is closed without a response: no client waits for one.
    if self.conn.trailing_data[0] and self.conn.our_state is h11.IDLE:
        self.transport.write(_plain_answer(HTTPStatus.REQUEST_TIMEOUT))
    self.transport.close()


def _plain_answer(status: HTTPStatus) -> bytes:
    body = f"{status.phrase}.\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
