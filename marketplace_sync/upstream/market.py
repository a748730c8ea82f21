"""The marketplace over HTTP: pages of skills, the categories, one skill, its health.

Every fetch is tried four times (PROTOCOL.md, "The client's duties"). The loop is ours rather than stamina's,
because between two tries stands more than a delay: each try takes from the request budget, a `Retry-After`
stops all requests through that budget and not just this one, and a long one ends the tries.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from marketplace_sync.conf import SyncConfig
from marketplace_sync.engine.rates import RequestBudget
from marketplace_sync.logs import Secret
from marketplace_sync.protocol.events import CategoryPage, SkillPage, SkillRecord
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.upstream import USER_AGENT
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.body import ACCEPT_ENCODING, read_body
from marketplace_sync.upstream.clock import http_date, retry_after, retry_after_of, utc_now
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    RateLimitedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamServerError,
    UpstreamTimeoutError,
    network_reason,
    quoted,
)
from marketplace_sync.upstream.proxies import Proxy
from marketplace_sync.upstream.tls import asks_for_certificate
from marketplace_sync.variants import token_headers

# PROTOCOL.md: "A request is tried four times, after 0.5, 1 and 2 s".
RETRY_DELAYS = (0.5, 1.0, 2.0)
# What a busy or restarting server says; every other error status would be the same half a second later.
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
# A pass can sit out two minutes; for a longer wait the daemon has better plans than to hold a pass open.
LONGEST_WAIT = 120.0
# Decoded in the event loop: so many bytes with no more commas, 60 ms of work at most, whatever they hold. The thread
# that any other body gets costs 0.2 ms. Bytes alone bound nothing: 300 KB of `{}` are 1.2 s of refused rows. A page of
# 100 skills as documented has 160 KB and 3,700 commas.
DECODED_AT_ONCE = 1_048_576
COMMAS_AT_ONCE = 5_000
# More of an error page than this is not read.
ERROR_BODY_BYTES = 16_384
ERROR_BODY_SECONDS = 2.0
# The marketplace allows 10 connections an instance.
MAX_CONNECTIONS = 10

# As documented, with the default prefix: what the metrics call them, whatever prefix a deployment has.
_PREFIX = "/api/v1"
SKILLS = f"{_PREFIX}/skills"
SKILL = f"{_PREFIX}/skills/{{skill_id}}"
CATEGORIES = f"{_PREFIX}/categories"
HEALTH = "/health"

T = TypeVar("T")
Decoder = Callable[[bytes, datetime], T]
Begun = Callable[[], None] | None


class MarketClient:
    """The HTTP side of one marketplace. An async context manager; safe to share between tasks.

    Every method raises an `UpstreamError` when it has no answer to give, after the tries that the fault is
    worth. `begun`, where given, is called for each try at the moment its request goes out, after any wait for
    the budget or for a connection: a listing row counts as having arrived then.

    `access` is what the process shares, made of the settings where it is not given. `clock` is the budget's clock,
    seconds, monotonic; `wall` our own time of day, used where an answer has no `Date`; `sleep` waits. `answered` is
    called for each try with path template, status and seconds, as `requests`. `retry_delays`: the waits before each
    further try.
    """

    def __init__(
        self,
        config: SyncConfig,
        access: Access | None = None,
        *,
        budget: RequestBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        answered: Callable[[str, str, float], None] = lambda *_: None,
        retry_delays: Sequence[float] = RETRY_DELAYS,
    ) -> None:
        self._config = config
        self._retry_delays = retry_delays
        self._budget = RequestBudget(config.requests_per_minute) if budget is None else budget
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._answered = answered
        self._base = config.api_url.rstrip("/")
        # Tries by (path template, status), the status as text: "200", or "timed_out", "unreachable" for none.
        self.requests: Counter[tuple[str, str]] = Counter()
        self._decoding = asyncio.Lock()
        self._access = access or Access(config)
        proxy = self._access.http_proxy
        # The server's clock minus ours, as the latest answer with a `Date` had it.
        self.server_offset: timedelta | None = None
        self._through = f" through {proxy}" if proxy is not None else ""
        self._http = httpx2.AsyncClient(
            headers={
                "Accept": "application/json",
                "Accept-Encoding": ACCEPT_ENCODING,
                "User-Agent": USER_AGENT,
            },
            verify=self._access.tls,
            proxy=_library_proxy(proxy, self._access),
            # Not the library's own rules for proxies, and no login out of a .netrc.
            trust_env=False,
            # A redirect would carry the token to whoever it names.
            follow_redirects=False,
            # An empty list of allowed domains: no cookie is kept.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            # The library's time-outs are per read, so a body fed drop by drop never meets one; ours is per try.
            timeout=None,
        )

    @property
    def budget(self) -> RequestBudget:
        """The request budget that all fetches of this process share."""
        return self._budget

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections. Not to be used afterwards."""
        await self._http.aclose()

    async def skill_page(self, page: int, *, page_size: int, begun: Begun = None) -> SkillPage:
        """Return one page of the listing; pages count from 1."""
        return await self._fetch(
            SKILLS,
            lambda body, now: decode_skill_page(body, server_now=now),
            params={"page": page, "page_size": page_size},
            begun=begun,
        )

    async def categories(self, *, begun: Begun = None) -> CategoryPage:
        """All categories; the marketplace does not page them."""
        return await self._fetch(CATEGORIES, lambda body, now: decode_category_page(body, server_now=now), begun=begun)

    async def skill(self, skill_id: str, *, begun: Begun = None) -> SkillRecord | None:
        """That skill; `None` when the marketplace says 404. A single fetch of the budget."""

        def decode(body: bytes, now: datetime) -> SkillRecord:
            record = decode_skill(body, server_now=now)
            if record.skill_id != skill_id:
                raise MalformedResponseError(f"asked for skill {quoted(skill_id)}, was given {quoted(record.skill_id)}")
            return record

        try:
            return await self._fetch(SKILL, decode, skill_id=skill_id, begun=begun)
        except UpstreamServerError as fault:
            if fault.status == 404:
                return None
            raise

    def single_fetch_wait(self) -> float:
        """Seconds until the budget would let a single fetch go; 0.0: now. Takes nothing from it."""
        return self._budget.wait(self._clock(), single=True)

    async def health(self) -> dict[str, Any]:
        """What the marketplace says of itself."""
        return await self._fetch(HEALTH, lambda body, _: _json_object(body))

    async def _fetch(
        self,
        template: str,
        decode: Decoder[T],
        *,
        params: Mapping[str, int] | None = None,
        skill_id: str | None = None,
        begun: Begun = None,
    ) -> T:
        """Tries until there is an answer, or a fault that another try won't mend, or no try is left."""
        path = template if skill_id is None else template.format(skill_id=quote(skill_id, safe=""))
        if path.startswith(_PREFIX):
            path = self._config.api_prefix + path.removeprefix(_PREFIX)
        single = skill_id is not None
        delays = iter(self._retry_delays)
        while True:
            while (wait := self._budget.reserve(self._clock(), single=single)) > 0:
                await self._sleep(wait)
            token = self._access.token.now()
            try:
                return await self._try(template, path, decode, params, begun, token)
            except UpstreamError as fault:
                if fault.retry_after is not None and fault.retry_after <= LONGEST_WAIT:
                    self._budget.pause_until(self._clock() + fault.retry_after)
                # A token that was replaced while it was under way is no reason to give up.
                replaced = fault.refused_token and self._access.token.look() != token
                delay = next(delays, None) if replaced or _worth_another_try(fault) else None
                if delay is None:
                    raise
            finally:
                self._budget.finish(self._clock(), single=single)
            await self._sleep(delay)

    async def _try(
        self,
        template: str,
        path: str,
        decode: Decoder[T],
        params: Mapping[str, int] | None,
        begun: Begun,
        token: Secret,
    ) -> T:
        """One request, whole, within the time-out."""
        response: httpx2.Response | None = None
        failed = ""
        sent = self._clock()

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            # A proxy's CONNECT goes through here as well; only the GET is the request.
            if event == "http11.send_request_headers.started" and info["request"].method == b"GET" and begun:
                begun()

        try:
            async with (
                asyncio.timeout(self._config.api_timeout),
                self._http.stream(
                    "GET", self._base + path, params=params, extensions={"trace": trace},
                    headers=token_headers(self._config.api_auth, token.reveal()),
                ) as response,
            ):  # fmt: skip
                if response.status_code == 400 and self._base.startswith("https:"):
                    await _check_certificate(response)
                await _check_status(response, now=self._wall())
                body = await read_body(response, limit=self._config.max_body_bytes)
            now = self._wall()
            if (date := http_date(response.headers.get("Date"))) is not None:
                self.server_offset, now = date - now, date
            if len(body) <= DECODED_AT_ONCE and body.count(b",") <= COMMAS_AT_ONCE:
                return decode(body, now)
            # Seconds for the worst body that passes: no pong may wait behind it. One by one, for the memory's sake.
            async with self._decoding:
                return await asyncio.to_thread(decode, body, now)
        except DecodeError as fault:
            raise MalformedResponseError(quoted(str(fault)), fault.refusal, body) from None
        except (TimeoutError, httpx2.TimeoutException):
            if response is None:
                failed = "timed_out"
            raise UpstreamTimeoutError(f"no whole answer within {self._config.api_timeout:g} s") from None
        except httpx2.ProxyError as fault:
            failed = "unreachable"
            # Its text is the status and what the proxy calls it.
            raise UnreachableError(
                f"the marketplace can't be reached{self._through}: it answers HTTP {str(fault)[:3]}"
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as fault:
            if response is not None:
                raise MalformedResponseError(f"the answer broke off: {network_reason(fault)}") from None
            failed = "unreachable"
            raise UnreachableError(
                f"the marketplace can't be reached{self._through}: {network_reason(fault)}"
            ) from None
        finally:
            status = failed if response is None else str(response.status_code)
            if status:  # none for one that was cancelled
                self.requests[template, status] += 1
                self._answered(template, status, self._clock() - sent)


async def _check_certificate(response: httpx2.Response) -> None:
    """Raises `UnreachableError` where a 400 is about our client certificate."""
    if reason := asks_for_certificate(response.status_code, await _error_body(response)):
        raise UnreachableError(f"the marketplace can't be reached: {reason}")


async def _error_body(response: httpx2.Response) -> bytes:
    """Return the body of an answer that is an error; empty where there is none, or one that is not worth the wait."""
    with contextlib.suppress(MalformedResponseError, TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            return await read_body(response, limit=ERROR_BODY_BYTES)
    return b""


def _library_proxy(proxy: Proxy | None, access: Access) -> httpx2.Proxy | None:
    if proxy is None:
        return None
    return httpx2.Proxy(proxy.url.reveal(), ssl_context=access.tls if proxy.secure else None)


async def _check_status(response: httpx2.Response, *, now: datetime) -> None:
    """Raise the fault that a status other than 2xx stands for."""
    status = response.status_code
    if 200 <= status < 300:
        return
    if status in (401, 403):
        raise TokenRefusedError(f"the marketplace refuses the token (HTTP {status})")
    headers = response.headers
    wait = None
    if status in (429, 503):
        asked, date = headers.get("Retry-After"), headers.get("Date")
        wait = retry_after(asked, date=date, now=now)
        if wait is None:
            wait = retry_after_of(asked, await _error_body(response), date=date, now=now)
    asks = "" if wait is None else f" and asks to wait {wait:g} s"
    if status == 429 or (wait is not None and wait > LONGEST_WAIT):
        raise RateLimitedError(f"the marketplace takes no requests now (HTTP {status}){asks}", wait)
    if 300 <= status < 400:
        raise UpstreamServerError(
            status, f"the marketplace answered with a redirect (HTTP {status}), which is not followed"
        )
    raise UpstreamServerError(status, f"the marketplace answered with HTTP {status}{asks}", wait)


def _worth_another_try(fault: UpstreamError) -> bool:
    match fault:
        case TokenRefusedError():
            return False
        case RateLimitedError(retry_after=wait):
            return wait is None or wait <= LONGEST_WAIT
        case UpstreamServerError(status=status):
            return status in RETRIED_STATUSES
        case _:
            return True


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise MalformedResponseError("the health answer is no JSON") from None
    if not isinstance(answer, dict):
        raise MalformedResponseError("the health answer is no JSON object")
    return answer
