"""One HTTP request to the marketplace: sent once, read whole, and every failure raised as an `UpstreamError`."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NoReturn

import httpx2

from marketplace_sync.conf import SyncConfig
from marketplace_sync.logs import Secret
from marketplace_sync.upstream import USER_AGENT
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.body import ACCEPT_ENCODING, read_body
from marketplace_sync.upstream.clock import http_date, retry_after, retry_after_of, utc_now
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    RateLimitedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamServerError,
    UpstreamTimeoutError,
    network_reason,
)
from marketplace_sync.upstream.proxies import Proxy
from marketplace_sync.upstream.tls import asks_for_certificate
from marketplace_sync.variants import token_headers

# Seconds. A request waits for a shorter `Retry-After`; for a longer one the full sync fails, and is scheduled again.
LONGEST_WAIT = 120.0
# More of an error page than this is not read, in bytes and in seconds.
ERROR_BODY_BYTES = 16_384
ERROR_BODY_SECONDS = 2.0
# The marketplace allows 10 connections per instance.
MAX_CONNECTIONS = 10

Sent = Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The body of a 2xx answer, and the server's time: its `Date`, our time if it has none."""

    body: bytes
    server_now: datetime


class HttpClient:
    """Send GET requests with the token. Safe to share between tasks; `aclose` ends it.

    `clock` is monotonic, in seconds; `wall` is our time of day. `answered` is called for each request with path
    template, status and seconds; the status is text: "200", or "timed_out", "unreachable" if there was no answer.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = utc_now,
        answered: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._wall = wall
        self._answered = answered
        self._base = config.api_url.rstrip("/")
        proxy = access.http_proxy
        self._through = f" through {proxy}" if proxy is not None else ""
        # Requests by (path template, status), as `answered` gets them.
        self.requests: Counter[tuple[str, str]] = Counter()
        # The server's clock minus ours, by the latest answer with a `Date`.
        self.server_offset: timedelta | None = None
        self._http = httpx2.AsyncClient(
            headers={
                "Accept": "application/json",
                "Accept-Encoding": ACCEPT_ENCODING,
                "User-Agent": USER_AGENT,
            },
            verify=access.tls,
            proxy=_library_proxy(proxy, access),
            # Without the library's own rules for proxies, and without a login out of a .netrc.
            trust_env=False,
            # A redirect would carry the token to the host that it names.
            follow_redirects=False,
            # An empty list of allowed domains: no cookie is stored.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            # The library's time-outs are per read, so a body sent drop by drop never meets one; ours is per request.
            timeout=None,
        )

    async def aclose(self) -> None:
        """Close the connections. Do not use the client afterwards."""
        await self._http.aclose()

    async def get(
        self, template: str, path: str, params: Mapping[str, int] | None, token: Secret, *, sent: Sent = None
    ) -> HttpAnswer:
        """Send one request and return its answer, within `api_timeout`. Raises an `UpstreamError`.

        `template` names the endpoint for the metrics. `sent` is called when the request is written to the socket.
        """
        begun, status = self._clock(), ""
        response: httpx2.Response | None = None
        try:
            async with (
                asyncio.timeout(self._config.api_timeout),
                self._http.stream(
                    "GET", self._base + path, params=params, extensions={"trace": _tracer(sent)},
                    headers=token_headers(self._config.api_auth, token.reveal()),
                ) as response,
            ):  # fmt: skip
                return await self._read(response)
        except (TimeoutError, httpx2.TimeoutException):
            status = "timed_out"
            raise UpstreamTimeoutError(f"no whole answer within {self._config.api_timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            status = "unreachable"
            self._raise_broken(error, response)
        finally:
            if response is not None:
                status = str(response.status_code)
            if status:  # a cancelled request has none
                self.requests[template, status] += 1
                self._answered(template, status, self._clock() - begun)

    async def _read(self, response: httpx2.Response) -> HttpAnswer:
        if response.status_code == 400 and self._base.startswith("https:"):
            await _check_certificate(response)
        await _check_status(response, now=self._wall())
        body = await read_body(response, limit=self._config.max_body_bytes)
        now = self._wall()
        date = http_date(response.headers.get("Date"))
        if date is None:
            return HttpAnswer(body, now)
        self.server_offset = date - now
        return HttpAnswer(body, date)

    def _raise_broken(self, error: Exception, response: httpx2.Response | None) -> NoReturn:
        """Raise what a failure of the network, or of the proxy, means."""
        if response is not None:
            raise MalformedResponseError(f"the answer broke off: {network_reason(error)}") from None
        # The text of a ProxyError is the proxy's status, and what the proxy calls it.
        by_proxy = isinstance(error, httpx2.ProxyError)
        reason = f"it answers HTTP {str(error)[:3]}" if by_proxy else network_reason(error)
        raise UnreachableError(f"the marketplace can't be reached{self._through}: {reason}") from None


def _library_proxy(proxy: Proxy | None, access: Access) -> httpx2.Proxy | None:
    if proxy is None:
        return None
    return httpx2.Proxy(proxy.url.reveal(), ssl_context=access.tls if proxy.secure else None)


def _tracer(sent: Sent) -> Callable[[str, Mapping[str, Any]], Any]:
    async def trace(event: str, info: Mapping[str, Any]) -> None:
        # A proxy's CONNECT comes here as well; only the GET is the request.
        if sent is not None and event == "http11.send_request_headers.started" and info["request"].method == b"GET":
            sent()

    return trace


async def _check_status(response: httpx2.Response, *, now: datetime) -> None:
    """Raise the error that a status other than 2xx stands for."""
    status = response.status_code
    if 200 <= status < 300:
        return
    if status in (401, 403):
        raise TokenRefusedError(f"the marketplace refuses the token (HTTP {status})")
    wait = await _requested_wait(response, now=now) if status in (429, 503) else None
    asks = "" if wait is None else f" and asks to wait {wait:g} s"
    if status == 429 or (wait is not None and wait > LONGEST_WAIT):
        raise RateLimitedError(f"the marketplace takes no requests now (HTTP {status}){asks}", wait)
    if 300 <= status < 400:
        raise UpstreamServerError(
            status, f"the marketplace answered with a redirect (HTTP {status}), which is not followed"
        )
    raise UpstreamServerError(status, f"the marketplace answered with HTTP {status}{asks}", wait)


async def _requested_wait(response: httpx2.Response, *, now: datetime) -> float | None:
    """Return the seconds that the answer asks to wait, by its header or its body; `None` if it names none."""
    asked, date = response.headers.get("Retry-After"), response.headers.get("Date")
    wait = retry_after(asked, date=date, now=now)
    if wait is not None:
        return wait
    return retry_after_of(asked, await _error_body(response), date=date, now=now)


async def _check_certificate(response: httpx2.Response) -> None:
    """Raise `UnreachableError` if a 400 is about our client certificate."""
    if reason := asks_for_certificate(response.status_code, await _error_body(response)):
        raise UnreachableError(f"the marketplace can't be reached: {reason}")


async def _error_body(response: httpx2.Response) -> bytes:
    """Return the body of an error answer; empty if it has none, or if reading it would take too long."""
    with contextlib.suppress(MalformedResponseError, TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            return await read_body(response, limit=ERROR_BODY_BYTES)
    return b""
