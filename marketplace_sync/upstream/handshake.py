"""Open the WebSocket connection to the marketplace: one attempt, no redirects, no compression.

A redirect is not followed because it would carry the token to the host that it names. The library's log is off below
WARNING because its DEBUG lines contain the URL, and with it the token.

No compression is offered. The library bounds each message, but it inflates all frames of one read together, and
a message of 2 MiB fits into 2,086 bytes: 256 KiB from the socket become 250 MiB in one call that nothing interrupts.
The cost was measured (`bench/README.md`): compression saves a quarter of the bytes, which at 100 messages per second
are 165 kB/s, for 7 µs more of our CPU per message.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.http11 import Response
from websockets.uri import parse_uri

from marketplace_sync.conf import SyncConfig
from marketplace_sync.protocol.limits import HARD_LIMIT_FACTOR
from marketplace_sync.upstream import USER_AGENT
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.clock import retry_after_of
from marketplace_sync.upstream.connection import MarketConnection
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
from marketplace_sync.upstream.transport import Endpoint, ProxyAnswerError, open_transport
from marketplace_sync.variants import query_parameter, token_headers

# Not in the logging tree, so that no configuration can make it print a URL. It still hands warnings to ours.
_LOG = logging.Logger("marketplace_sync.upstream.websockets", logging.WARNING)
_LOG.parent = logging.getLogger("marketplace_sync.upstream")


async def open_connection(config: SyncConfig, access: Access, *, now: Callable[[], datetime]) -> MarketConnection:
    """Try once, within `connect_timeout`, and return the open connection. After an error nothing is left open.

    `now` is our time of day, for a `Retry-After` without a `Date`. Raises `TokenRefusedError` (HTTP 401, 403),
    `RateLimitedError` (429, with its `Retry-After`), `UpstreamTimeoutError`, else `UnreachableError`.
    """
    through = f" through {access.stream_proxy}" if access.stream_proxy is not None else ""
    try:
        async with asyncio.timeout(config.connect_timeout):
            return await _connect(config, access)
    except TimeoutError:
        raise UpstreamTimeoutError(f"no handshake within {config.connect_timeout:g} s") from None
    except InvalidStatus as error:
        raise _status_error(error.response, now=now()) from None
    except InvalidMessage as error:
        raise UnreachableError(f"the handshake broke off: {network_reason(error.__cause__ or error)}") from None
    except ProxyAnswerError as error:
        raise UnreachableError(f"the stream can't be reached{through}: {error}", error.status) from None
    except (InvalidHandshake, OSError, EOFError) as error:
        raise UnreachableError(f"the stream can't be reached{through}: {network_reason(error)}") from None


async def _connect(config: SyncConfig, access: Access) -> MarketConnection:
    """Connect and shake hands. Raises what `open_transport` and `MarketConnection.handshake` raise."""
    token = access.token.now().reveal()
    parameter = query_parameter(config.ws_auth)
    try:
        uri = parse_uri(with_token(config.ws_url, token, parameter) if parameter else config.ws_url)
    except (InvalidURI, ValueError):
        # Their text is the URL, with the token in it.
        raise UnreachableError("the WebSocket address can't be used") from None
    protocol = ClientProtocol(uri, max_size=hard_limit(config), logger=_LOG)
    _, connection = await open_transport(
        lambda: MarketConnection(protocol),
        Endpoint(uri.host, uri.port, uri.secure),
        proxy=access.stream_proxy,
        tls=access.tls,
    )
    try:
        await connection.handshake({"User-Agent": USER_AGENT, **token_headers(config.ws_auth, token)})
    except BaseException as error:
        connection.abort()
        if isinstance(error, InvalidMessage) and connection.socket_error is not None:
            # The protocol object has seen an end of file only.
            raise error from connection.socket_error
        raise
    return connection


def hard_limit(config: SyncConfig) -> int:
    """Return the size in bytes above which a message closes the connection (code 1009); below, it is refused alone."""
    return config.max_message_bytes * HARD_LIMIT_FACTOR


def with_token(ws_url: str, token: str, parameter: str = "token") -> str:
    """Return the URL with the token as `parameter`, in place of one it may have. Other parameters are kept."""
    scheme, netloc, path, query, _ = urlsplit(ws_url)
    kept = [part for part in query.split("&") if part and part.partition("=")[0] != parameter]
    return urlunsplit((scheme, netloc, path, "&".join([*kept, f"{parameter}={quote(token, safe='')}"]), ""))


def header(response: Response | None, name: str) -> str | None:
    """Return the first header of that name; `None` if there is none."""
    values = response.headers.get_all(name) if response is not None else []
    return values[0] if values else None


def _status_error(response: Response, *, now: datetime) -> UpstreamError:
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
