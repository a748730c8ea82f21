"""Opens one WebSocket connection, and bounds what the library leaves unbounded.

What is turned off in `websockets`, and why: redirects (they would carry the token, which is in the URL, to
whoever they name), its keepalive (`heartbeat` has ours, which accepts JSON pongs too), its DEBUG log (prints
the URL), its own choice of a proxy (`proxies` has one rule for both), and compression: each message is bounded, but
it inflates all frames of one read at once, and a message of 2 MiB fits into 2,086 bytes: 256 KiB from the socket
become 250 MiB in one call that nothing interrupts. What that forgoes was measured (`bench/README.md`): a quarter of
the bytes, which at 100 messages a second are 165 kB/s, for 7 us more of our CPU a message.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
)
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event, State

from marketplace_sync.conf import SyncConfig
from marketplace_sync.protocol.limits import HARD_LIMIT_FACTOR
from marketplace_sync.upstream import USER_AGENT
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.clock import retry_after_of
from marketplace_sync.upstream.errors import (
    RateLimitedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
    network_reason,
    quoted,
)
from marketplace_sync.upstream.tls import asks_for_certificate
from marketplace_sync.variants import query_parameter, token_headers

# The closing handshake, whoever begins it: a peer that does not finish it is not waited for.
CLOSE_WITHIN = 1.0
# Our pings, our pongs and the library's answers to ping frames, not read by the peer. At 100 bytes a pong this
# is a peer that has ignored ten thousand of them; honest ones have none waiting.
UNREAD_LIMIT = 1_048_576
# Messages read ahead before the socket is paused; each may have HARD_LIMIT_FACTOR MiB.
READ_AHEAD = 4

# A host may have addresses that lead nowhere: often an AAAA record without a route. The next one is tried after this
# long, beside those under way, and the first that answers is taken (RFC 8305; the HTTP library waits as long).
NEXT_ADDRESS_AFTER = 0.25

# What the kernel may hold for us. Left alone it grows to 6 MiB, and in a flood a pong waits behind all of it: with
# messages of 80 bytes for four seconds. This much still carries 2 MB a second over a line with 100 ms to go.
RECEIVE_BUFFER_BYTES = 256 * 1024

# Not in the logging tree, so that no configuration can make it print a URL; warnings go up as ever.
_LOG = logging.Logger("marketplace_sync.upstream.websockets", logging.WARNING)
_LOG.parent = logging.getLogger("marketplace_sync.upstream")


class MarketConnection(ClientConnection):
    """A connection that says which messages were text, tells of pong frames, and writes without waiting.

    Messages wait in a queue of its own: the library's is made for frames and for readers that decode, and takes
    more time a message than putting the frame together.
    """

    on_pong: Callable[[bytes], None] | None = None
    arrived = 0  # whole messages, read or not
    deaf = False  # dropped because the peer read nothing of what we sent
    broken_by: Exception | None = None  # what the socket died of; the library keeps it to itself during the handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._messages: deque[tuple[bytes, bool]] = deque()
        self._more = asyncio.Event()
        self._partial = bytearray()  # of a message that comes in several frames
        self._is_text = False
        self._held_back = False
        self._closer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    async def next_message(self) -> tuple[bytes, bool]:
        """The next message as it came, and whether it was text. Raises `ConnectionClosed` after the last."""
        while not self._messages:
            if self._held_back:
                self._held_back = False
                self.transport.resume_reading()
            if self.connection_lost_waiter.done():
                raise self.close_exc
            self._more.clear()
            await self._more.wait()
        return self._messages.popleft()

    def write(self, *, text: str | None = None, ping: bytes | None = None) -> None:
        """Sends without waiting for the peer to read; a connection that is closing sends nothing more."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        if text is not None:
            self.protocol.send_text(text.encode())
        if ping is not None:
            self.protocol.send_ping(ping)
        self.send_data()
        self._bound_unread()

    def abort(self) -> None:
        """Drops the connection without a closing handshake."""
        self.transport.abort()

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame):
            opcode = event.opcode
            if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
                self._is_text = opcode is Opcode.TEXT
                return self._take(event)
            if opcode is Opcode.CONT:
                return self._take(event)
            if opcode is Opcode.PONG and self.on_pong is not None:
                self.on_pong(bytes(event.data))
        super().process_event(event)

    def _take(self, frame: Frame) -> None:
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
        if len(self._messages) > READ_AHEAD and not self._held_back:
            self._held_back = True
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The library answers ping frames here, without looking whether anybody reads the answers.
        self._bound_unread()
        # It also waits without end for the peer to close the socket after a close frame.
        if self._closer is None and self.protocol.close_expected():
            self._closer = self.loop.call_later(CLOSE_WITHIN, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken_by = exc
        if self._closer is not None:
            self._closer.cancel()
        super().connection_lost(exc)
        self._more.set()

    def _bound_unread(self) -> None:
        if self.transport.get_write_buffer_size() > UNREAD_LIMIT:
            self.deaf = True
            self.abort()


class _ConnectOnce(connect):
    """`connect` without redirects, which can tell what the socket died of."""

    _made: ClientConnection | None = None

    @property
    def broken_by(self) -> Exception | None:
        return self._made.broken_by if isinstance(self._made, MarketConnection) else None

    async def open_tcp_connection(self) -> ClientConnection:
        self._made = await super().open_tcp_connection()
        return self._made

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def hard_limit(config: SyncConfig) -> int:
    """The bytes of a message past which the connection is closed, code 1009, rather than the message refused."""
    return config.max_message_bytes * HARD_LIMIT_FACTOR


async def open_connection(config: SyncConfig, access: Access, *, now: Callable[[], datetime]) -> MarketConnection:
    """One attempt, within `connect_timeout`. Raises an `UpstreamError`; whatever came up is closed by then."""
    proxy = access.stream_proxy
    through = f" through {proxy}" if proxy is not None else ""
    token = access.token.now().reveal()
    parameter = query_parameter(config.ws_auth)
    try:
        attempt = _ConnectOnce(
            with_token(config.ws_url, token, parameter) if parameter else config.ws_url,
            additional_headers=token_headers(config.ws_auth, token),
            create_connection=MarketConnection,
            proxy=proxy.url.reveal() if proxy is not None else None,
            **_trust(config, access),
            user_agent_header=USER_AGENT,
            compression=None,
            open_timeout=config.connect_timeout,
            close_timeout=CLOSE_WITHIN,
            ping_interval=None,
            max_size=hard_limit(config),
            max_queue=READ_AHEAD,
            logger=_LOG,
            # Of `loop.create_connection`, to the proxy where there is one.
            happy_eyeballs_delay=NEXT_ADDRESS_AFTER,
        )
    except (InvalidURI, ValueError):
        # Their text is the URL, with the token in it.
        raise UnreachableError("the WebSocket address can't be used") from None
    try:
        connection = await attempt
    except TimeoutError:
        raise UpstreamTimeoutError(f"no handshake within {config.connect_timeout:g} s") from None
    except InvalidStatus as fault:
        raise _status_fault(fault.response, now=now()) from None
    except InvalidMessage as fault:
        cause = attempt.broken_by or fault.__cause__ or fault
        raise UnreachableError(f"the handshake broke off: {network_reason(cause)}") from None
    except InvalidProxyStatus as fault:
        raise UnreachableError(
            f"the stream can't be reached{through}: it answers HTTP {fault.response.status_code}"
        ) from None
    except (InvalidHandshake, InvalidProxy, OSError, EOFError) as fault:
        raise UnreachableError(f"the stream can't be reached{through}: {network_reason(fault)}") from None
    assert isinstance(connection, MarketConnection)
    return connection


def _trust(config: SyncConfig, access: Access) -> dict[str, Any]:
    """Our context for each of the two that speaks TLS, which the library refuses for one that does not."""
    trust = {}
    if config.ws_url.startswith("wss:"):
        trust["ssl"] = access.tls
    if access.stream_proxy is not None and access.stream_proxy.secure:
        trust["proxy_ssl"] = access.tls
    return trust


def with_token(ws_url: str, token: str, parameter: str = "token") -> str:
    """Return the address with the token as `parameter`, in place of one it may have; others stay as they are."""
    scheme, netloc, path, query, _ = urlsplit(ws_url)
    kept = [part for part in query.split("&") if part and part.partition("=")[0] != parameter]
    return urlunsplit((scheme, netloc, path, "&".join([*kept, f"{parameter}={quote(token, safe='')}"]), ""))


def header(response: Response | None, name: str) -> str | None:
    """The first header of that name; `None` when there is none."""
    values = response.headers.get_all(name) if response is not None else []
    return values[0] if values else None


def _status_fault(response: Response, *, now: datetime) -> UpstreamError:
    status = response.status_code
    if status in (401, 403):
        return TokenRefusedError(f"the marketplace refuses the token (HTTP {status} at the handshake)")
    if status == 429:
        wait = retry_after_of(
            header(response, "Retry-After"), bytes(response.body), date=header(response, "Date"), now=now
        )
        asks = "" if wait is None else f" and asks to wait {wait:g} s"
        return RateLimitedError(f"the marketplace takes no connections now (HTTP 429){asks}", wait)
    if 300 <= status < 400:
        reason = f"the handshake was answered with a redirect (HTTP {status}), which is not followed"
        return UnreachableError(reason, status)
    if reason := asks_for_certificate(status, bytes(response.body)):
        return UnreachableError(f"the stream can't be reached: {reason}")
    return UnreachableError(quoted(f"the handshake was answered with HTTP {status}"), status)
