"""The errors of the connection to the marketplace, classified once, by who can repair them.

Every text may be shown to an operator and logged: it contains no URL, and the server's own words are
redacted, put on one line and cut to `QUOTED_CHARS`.
"""

import os
import socket
import ssl

from marketplace_sync.logs import redact
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.tls import tls_reason

# A close reason has 123 bytes at most; more of a server's text than this helps nobody.
QUOTED_CHARS = 200

# The close codes by which the marketplace refuses a token on a connection that it had accepted.
TOKEN_REFUSED_CODES = frozenset({1008, 4401})


class UpstreamError(Exception):
    """The marketplace could not be reached, or did not answer as it should.

    `refused_token`: another request with the same token is no use. `retry_after`: the seconds that the
    marketplace asked us to wait, `None` if it named none.
    """

    refused_token: bool = False
    retry_after: float | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreachableError(UpstreamError):
    """The network failed: DNS, refused, reset, TLS, or no handshake.

    `status`: the answer to a handshake instead of 101, or a proxy's to CONNECT; `None` if there was none.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class UpstreamTimeoutError(UpstreamError):
    """No whole answer in time. Either the network or the peer failed."""


class TokenRefusedError(UpstreamError):
    """The operator has to act: HTTP 401 or 403, close code 1008 or 4401."""

    refused_token = True


class RateLimitedError(UpstreamError):
    """We, or others with this token, sent too many requests: none is accepted for `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UpstreamServerError(UpstreamError):
    """The peer failed: an HTTP status that is no answer, a redirect included."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


class MalformedResponseError(UpstreamError):
    """The peer failed: a body too large, broken off, or not what was requested.

    `refusal` is the decoder's reason, and `body` what it read; `None` and empty if it did not get that far.
    """

    def __init__(self, reason: str, refusal: Refusal | None = None, body: bytes = b"") -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.body = body


class NothingReadableError(UpstreamError):
    """The peer failed, or we: every record of a listing was refused. Wait for `retry_after` before the next sync."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StreamClosedError(UpstreamError):
    """The stream ended. `code` is the WebSocket close code; 1006: the connection broke without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class PeerDeadError(UpstreamError):
    """The socket was open, but the peer did not respond: no pong in time, or it read nothing of what we sent."""


def quoted(text: str) -> str:
    """Return a server's text as it may be shown: without secrets, on one line, cut short.

    It is redacted before it is cut, so that no half of a token remains.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
    return line if len(line) <= QUOTED_CHARS else line[: QUOTED_CHARS - 1] + "…"


def network_reason(error: BaseException) -> str:
    """Return why the network failed, in the operating system's words if the chain of causes contains them.

    HTTP libraries wrap the one useful line ("Connection refused") in layers that explain less.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ssl.SSLError):
            return quoted(tls_reason(current))
        if isinstance(current, socket.gaierror) and current.strerror:
            return quoted(current.strerror)
        # By its number: asyncio replaces the system's text by one with an address in it.
        if isinstance(current, OSError) and current.errno:
            return quoted(os.strerror(current.errno))
        if isinstance(current, BaseExceptionGroup):
            queue.extend(current.exceptions)
        queue += [current.__cause__, current.__context__]
    return quoted(str(error)) or type(error).__name__
