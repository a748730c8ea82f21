"""Two answers that uvicorn 0.54 owes a client whose request head is not to be had; `asgi.py` installs them.

- A WebSocket handshake with a line over 8 KiB or more than 128 headers: the library has the answer (414 or 431) ready,
  and uvicorn never writes it, nor closes the connection.
- A head that never ends: there is no time limit, so each such connection stays for as long as the client likes. h11
  bounds the bytes of a head; `HEAD_SECONDS` bounds its time.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# From the first byte of a head, or from the connection, to its end. nginx sends a head in one piece.
HEAD_SECONDS = 20.0
_TIMER = "_head_timer"

_ws_data_received = WebSocketsSansIOProtocol.data_received
_connection_made = H11Protocol.connection_made
_connection_lost = H11Protocol.connection_lost
_data_received = H11Protocol.data_received


def install() -> None:
    """Replace uvicorn's methods by the corrected ones. A second call changes nothing."""
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
    # IDLE: the next request has not come whole. A timer that runs goes on, so drops do not prolong it.
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
    # A connection on which nothing came is closed without a word: nobody waits for an answer.
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
