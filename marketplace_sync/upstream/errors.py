"""What can go wrong on the way to the marketplace, classified once, by whose fault it is.

Every text is fit for an operator and for a log: it names no URL, and what the server itself said is
redacted, put on one line and cut to `QUOTED_CHARS`.
"""

import os
import socket
import ssl

from marketplace_sync.logs import redact
from marketplace_sync.protocol.refusals import Refusal
from marketplace_sync.upstream.tls import tls_reason

# A close reason has 123 bytes at most; more of a server's prose than this helps nobody.
QUOTED_CHARS = 200

# The close codes by which the marketplace refuses a token on a connection that it had accepted.
TOKEN_REFUSED_CODES = frozenset({1008, 4401})


class UpstreamError(Exception):
    """The marketplace could not be asked, or did not answer as it should.

    `refused_token`: asking again with the same token is no use. `retry_after`: the seconds that the
    marketplace asked us to wait, `None` where it named none.
    """

    refused_token: bool = False
    retry_after: float | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnreachableError(UpstreamError):
    """The network's fault: DNS, refused, reset, TLS, or no handshake was to be had.

    `status`: what a handshake was answered with instead of 101; `None` when it was not answered.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class UpstreamTimeoutError(UpstreamError):
    """No whole answer in time. Whose fault is open: the network's or the peer's."""


class TokenRefusedError(UpstreamError):
    """The operator's fault: HTTP 401 or 403, close code 1008 or 4401."""

    refused_token = True


class RateLimitedError(UpstreamError):
    """Ours, or a shared budget's: the marketplace wants fewer requests, or none for `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class UpstreamServerError(UpstreamError):
    """The peer's fault: an HTTP status that is no answer, a redirect included."""

    def __init__(self, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after = retry_after


class MalformedResponseError(UpstreamError):
    """The peer's fault: a body too large, broken off, or not what was asked for.

    `refusal` is the decoder's verdict, and `body` what it read; `None` and empty when it did not get that far.
    """

    def __init__(self, reason: str, refusal: Refusal | None = None, body: bytes = b"") -> None:
        super().__init__(reason)
        self.refusal = refusal
        self.body = body


class NothingReadableError(UpstreamError):
    """The peer's fault, or ours: every record of a listing was refused. It is worth no hurry: `retry_after`."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StreamClosedError(UpstreamError):
    """The stream ended. `code` is the WebSocket close code; 1006: the connection broke without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class PeerDeadError(UpstreamError):
    """The socket looked open, and nobody was there: no pong in time, or nobody read what we sent."""


def quoted(text: str) -> str:
    """What a server said, as it may be shown: without secrets, on one line, cut short.

    Redacted before it is cut, so that no half of a token is left over.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
    return line if len(line) <= QUOTED_CHARS else line[: QUOTED_CHARS - 1] + "…"


def network_reason(fault: BaseException) -> str:
    """Why the network failed, from the operating system's own words where the chain of causes has them.

    HTTP libraries wrap the one useful line ("Connection refused") in layers that say less.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [fault]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ssl.SSLError):
            return quoted(tls_reason(current))
        if isinstance(current, socket.gaierror) and current.strerror:
            return quoted(current.strerror)
        # By its number: asyncio puts an address of its own in the place of the system's text.
        if isinstance(current, OSError) and current.errno:
            return quoted(os.strerror(current.errno))
        if isinstance(current, BaseExceptionGroup):
            queue.extend(current.exceptions)
        queue += [current.__cause__, current.__context__]
    return quoted(str(fault)) or type(fault).__name__
