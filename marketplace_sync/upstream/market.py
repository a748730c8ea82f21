"""The marketplace's endpoints over HTTP: pages of skills, the categories, one skill, its health.

Each is tried four times (docs/protocol.md, "What the client does"). The loop is ours and not stamina's, because more
than a delay stands between two tries: each try takes a slot of the request budget, a `Retry-After` stops all requests
of that budget and not only this one, and a long one ends the tries.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from marketplace_sync.conf import SyncConfig
from marketplace_sync.engine.rates import RequestBudget
from marketplace_sync.protocol.events import CategoryPage, SkillPage, SkillRecord
from marketplace_sync.protocol.listing import decode_category_page, decode_skill, decode_skill_page
from marketplace_sync.protocol.refusals import DecodeError
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.clock import utc_now
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    RateLimitedError,
    TokenRefusedError,
    UpstreamError,
    UpstreamServerError,
    quoted,
)
from marketplace_sync.upstream.http import LONGEST_WAIT, HttpAnswer, HttpClient, Sent

# Seconds between the four tries of a request.
RETRY_DELAYS = (0.5, 1.0, 2.0)
# What a busy or restarting server answers; any other error status would be the same half a second later.
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
# Bodies up to this many bytes and commas are decoded in the event loop: 60 ms of work at most, whatever they contain.
# Any other body is decoded in a thread, which costs 0.2 ms. Bytes alone bound nothing: 300 KB of `{}` are 1.2 s of
# refused rows. A page of 100 skills as documented has 160 KB and 3,700 commas.
MAX_INLINE_BYTES = 1_048_576
MAX_INLINE_COMMAS = 5_000

# As documented, with the default prefix: the names in the metrics, whatever prefix a deployment has.
_PREFIX = "/api/v1"
SKILLS = f"{_PREFIX}/skills"
SKILL = f"{_PREFIX}/skills/{{skill_id}}"
CATEGORIES = f"{_PREFIX}/categories"
HEALTH = "/health"

T = TypeVar("T")
Decoder = Callable[[bytes, datetime], T]


class MarketClient:
    """The HTTP side of one marketplace. An async context manager; safe to share between tasks.

    Every method raises an `UpstreamError` if it gets no answer, after the tries that the error is worth. `begun`, if
    given, is called for each try at the moment its request is sent, after any wait for the budget or for a connection:
    a listing row counts as having arrived then.

    `access` is shared by the process; by default it is made of the settings. `clock` is the budget's clock: seconds,
    monotonic. `wall` is our time of day, used if an answer has no `Date`. `sleep` waits. `answered` is called
    for each try, as `HttpClient` describes. `retry_delays` are the waits before each further try, `RETRY_DELAYS` by
    default.
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
        retry_delays: Sequence[float] | None = None,
    ) -> None:
        self._config = config
        self._access = access or Access(config)
        self._budget = RequestBudget(config.requests_per_minute) if budget is None else budget
        self._clock = clock
        self._sleep = sleep
        self._retry_delays = RETRY_DELAYS if retry_delays is None else retry_delays
        self._http = HttpClient(config, self._access, clock=clock, wall=wall, answered=answered)
        self._decoding = asyncio.Lock()

    @property
    def budget(self) -> RequestBudget:
        """Return the request budget that all fetches of this process share."""
        return self._budget

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """Return how many tries there were, by (path template, status)."""
        return self._http.requests

    @property
    def server_offset(self) -> timedelta | None:
        """Return the server's clock minus ours, by the latest answer with a `Date`; `None` if there was none."""
        return self._http.server_offset

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Do not use the client afterwards."""
        await self._http.aclose()

    async def skill_page(self, page: int, *, page_size: int, begun: Sent = None) -> SkillPage:
        """Return one page of the listing; pages count from 1."""
        return await self._fetch(
            SKILLS,
            lambda body, now: decode_skill_page(body, server_now=now),
            params={"page": page, "page_size": page_size},
            begun=begun,
        )

    async def categories(self, *, begun: Sent = None) -> CategoryPage:
        """Return all categories; the marketplace does not page them."""
        return await self._fetch(CATEGORIES, lambda body, now: decode_category_page(body, server_now=now), begun=begun)

    async def skill(self, skill_id: str, *, begun: Sent = None) -> SkillRecord | None:
        """Return that skill; `None` if the answer is 404. Counts as a single fetch in the budget."""

        def decode(body: bytes, now: datetime) -> SkillRecord:
            record = decode_skill(body, server_now=now)
            if record.skill_id != skill_id:
                raise MalformedResponseError(f"asked for skill {quoted(skill_id)}, was given {quoted(record.skill_id)}")
            return record

        try:
            return await self._fetch(SKILL, decode, skill_id=skill_id, begun=begun)
        except UpstreamServerError as error:
            if error.status == 404:
                return None
            raise

    def single_fetch_wait(self) -> float:
        """Return the seconds until the budget allows a single fetch; 0.0: now. Takes no slot."""
        return self._budget.wait(self._clock(), single=True)

    async def health(self) -> dict[str, Any]:
        """Return the answer of the health endpoint."""
        return await self._fetch(HEALTH, lambda body, _: _json_object(body))

    async def _fetch(
        self,
        template: str,
        decode: Decoder[T],
        *,
        params: Mapping[str, int] | None = None,
        skill_id: str | None = None,
        begun: Sent = None,
    ) -> T:
        """Try until there is an answer, an error that another try can't repair, or no try left."""
        path = self._path(template, skill_id)
        single = skill_id is not None
        delays = iter(self._retry_delays)
        while True:
            while (wait := self._budget.reserve(self._clock(), single=single)) > 0:
                await self._sleep(wait)
            token = self._access.token.now()
            try:
                answer = await self._http.get(template, path, params, token, sent=begun)
                return await self._decode(answer, decode)
            except UpstreamError as error:
                if error.retry_after is not None and error.retry_after <= LONGEST_WAIT:
                    self._budget.pause_until(self._clock() + error.retry_after)
                # If the token was replaced while the request was under way, the new one may be accepted.
                replaced = error.refused_token and self._access.token.look() != token
                delay = next(delays, None) if replaced or _worth_another_try(error) else None
                if delay is None:
                    raise
            finally:
                self._budget.finish(self._clock(), single=single)
            await self._sleep(delay)

    def _path(self, template: str, skill_id: str | None) -> str:
        path = template if skill_id is None else template.format(skill_id=quote(skill_id, safe=""))
        return self._config.api_prefix + path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else path

    async def _decode(self, answer: HttpAnswer, decode: Decoder[T]) -> T:
        body, now = answer.body, answer.server_now
        try:
            if len(body) <= MAX_INLINE_BYTES and body.count(b",") <= MAX_INLINE_COMMAS:
                return decode(body, now)
            # The worst body that is accepted takes seconds; no pong may wait for it. One at a time, to bound memory.
            async with self._decoding:
                return await asyncio.to_thread(decode, body, now)
        except DecodeError as error:
            raise MalformedResponseError(quoted(str(error)), error.refusal, body) from None


def _worth_another_try(error: UpstreamError) -> bool:
    match error:
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
