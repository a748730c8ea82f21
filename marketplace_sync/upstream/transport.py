"""Open a TCP connection to the marketplace: through its proxy where one is configured, and with TLS where the URL asks.

A `wss:` or `https:` URL behind a proxy is tunnelled with HTTP CONNECT, and so is `ws:`. TLS to the proxy itself and TLS
to the marketplace use the same context.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from marketplace_sync.upstream import USER_AGENT
from marketplace_sync.upstream.errors import UnreachableError, network_reason
from marketplace_sync.upstream.proxies import Proxy

# A host may have addresses that lead nowhere: often an AAAA record without a route. The next one is tried after this
# many seconds, beside those that are under way; the first that answers is used (RFC 8305; the HTTP library waits as
# long).
NEXT_ADDRESS_AFTER = 0.25
# The headers of a proxy's answer to CONNECT; honest ones have some hundred bytes.
_MAX_ANSWER_BYTES = 65_536

P = TypeVar("P", bound=asyncio.Protocol)


class ProxyAnswerError(Exception):
    """The proxy opened no tunnel. `status`: its HTTP status, `None` if the answer was no HTTP."""

    def __init__(self, status: int | None) -> None:
        super().__init__("it gives no HTTP answer" if status is None else f"it answers HTTP {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of the marketplace. `secure`: with TLS."""

    host: str
    port: int
    secure: bool

    @property
    def authority(self) -> str:
        """Return host and port, as in a CONNECT request."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def open_transport(
    factory: Callable[[], P], endpoint: Endpoint, *, proxy: Proxy | None, tls: ssl.SSLContext
) -> tuple[asyncio.Transport, P]:
    """Connect, and call `connection_made` of the protocol that `factory` makes. It sets no time limit.

    Raises `OSError` (`ssl.SSLError` included), `EOFError` if the proxy closes the connection, and `ProxyAnswerError`.
    """
    if proxy is None:
        return await _connect(factory, endpoint, tls)
    transport = await _open_tunnel(proxy, endpoint, tls)
    try:
        protocol = factory()
        if endpoint.secure:
            secured = await asyncio.get_running_loop().start_tls(
                transport, protocol, tls, server_hostname=endpoint.host
            )
            assert secured is not None
            transport = secured
        else:
            transport.set_protocol(protocol)
        protocol.connection_made(transport)
    except BaseException:
        transport.abort()
        raise
    return transport, protocol


async def open_tls(url: str, *, proxy: Proxy | None, tls: ssl.SSLContext) -> str:
    """Do a TLS handshake and close. Return its version and with whom: for an `http:` URL, the proxy.

    Raises `UnreachableError`.
    """
    parts = urlsplit(url)
    endpoint = Endpoint(parts.hostname or "", parts.port or 443, parts.scheme == "https")
    try:
        if endpoint.secure or proxy is None:
            transport, _ = await open_transport(asyncio.Protocol, endpoint, proxy=proxy, tls=tls)
        else:
            transport, _ = await _connect(asyncio.Protocol, _endpoint_of(proxy), tls)
    except ProxyAnswerError as error:
        raise UnreachableError(f"{proxy}: {error}", error.status) from None
    except (OSError, EOFError) as error:
        raise UnreachableError(f"no TLS with {proxy or endpoint.host}: {network_reason(error)}") from None
    connection: ssl.SSLObject = transport.get_extra_info("ssl_object")
    transport.abort()
    return f"{connection.version()}, {endpoint.host if endpoint.secure else proxy}"


async def _connect(factory: Callable[[], P], endpoint: Endpoint, tls: ssl.SSLContext) -> tuple[asyncio.Transport, P]:
    return await asyncio.get_running_loop().create_connection(
        factory,
        endpoint.host,
        endpoint.port,
        ssl=tls if endpoint.secure else None,
        happy_eyeballs_delay=NEXT_ADDRESS_AFTER,
    )


async def _open_tunnel(proxy: Proxy, endpoint: Endpoint, tls: ssl.SSLContext) -> asyncio.Transport:
    transport, answer = await _connect(_ConnectAnswer, _endpoint_of(proxy), tls)
    try:
        transport.write(_connect_request(endpoint, proxy))
        status = await answer.status
        if not 200 <= status < 300:
            raise ProxyAnswerError(status)
    except BaseException:
        transport.abort()
        raise
    return transport


def _endpoint_of(proxy: Proxy) -> Endpoint:
    parts = urlsplit(proxy.url.reveal())
    return Endpoint(parts.hostname or "", parts.port or (443 if proxy.secure else 80), proxy.secure)


def _connect_request(endpoint: Endpoint, proxy: Proxy) -> bytes:
    lines = [f"CONNECT {endpoint.authority} HTTP/1.1", f"Host: {endpoint.authority}", f"User-Agent: {USER_AGENT}"]
    parts = urlsplit(proxy.url.reveal())
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


class _ConnectAnswer(asyncio.Protocol):
    """Read the head of a proxy's answer to CONNECT; `status` is its HTTP status."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.status.done():
            return
        if b"\r\n\r\n" in self._head:
            version, _, rest = bytes(self._head).partition(b" ")
            if version.startswith(b"HTTP/1.") and rest[:3].isdigit():
                self.status.set_result(int(rest[:3]))
            else:
                self.status.set_exception(ProxyAnswerError(None))
        elif len(self._head) > _MAX_ANSWER_BYTES:
            self.status.set_exception(ProxyAnswerError(None))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(exc or EOFError("the proxy closed the connection"))
