"""Test the connection to the marketplace step by step, with the client that the daemon uses. Writes nothing."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from marketplace_sync.conf import SyncConfig
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.advice import Advice, CheckError
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    UpstreamError,
    UpstreamServerError,
    UpstreamTimeoutError,
    network_reason,
    quoted,
)
from marketplace_sync.upstream.market import MarketClient
from marketplace_sync.upstream.proxies import Proxy
from marketplace_sync.upstream.stream import Stream
from marketplace_sync.upstream.transport import NEXT_ADDRESS_AFTER, open_tls

_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
# Clocks that differ by more are reported: times in logs and pages are ours.
_CLOCKS_DIFFER = timedelta(minutes=1)
_NOT_IN_SERVICE = ("unhealthy", "down", "maintenance", "unavailable", "error", "fail")
NOT_USED = "not used"


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step. `hint`: which setting to change, if it failed."""

    step: str
    ok: bool
    seconds: float
    detail: str
    hint: str = ""


class Checkup:
    """The steps after `settings`, in their order. It ends with the first step that fails."""

    def __init__(self, config: SyncConfig, access: Access) -> None:
        self._config = config
        self._access = access
        self._advice = Advice(config)
        self._market: MarketClient | None = None
        self._stream: Stream | None = None
        self._no_categories: UpstreamServerError | MalformedResponseError | None = None

    async def run(self) -> AsyncIterator[Step]:
        """Yield each step as soon as it is done."""
        steps: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("dns", self._dns), ("tcp", self._tcp), ("tls", self._tls), ("health", self._health),
            ("token", self._token), ("listing", self._listing), ("websocket", self._websocket),
            ("heartbeat", self._heartbeat),
        )  # fmt: skip
        async with MarketClient(self._config, self._access, retry_delays=()) as self._market:
            try:
                for name, test in steps:
                    step = await self._try(name, test)
                    yield step
                    if not step.ok:
                        return
            finally:
                if self._stream is not None:
                    self._stream.abort()

    async def _try(self, name: str, test: Callable[[], Awaitable[str]]) -> Step:
        begun = time.monotonic()
        try:
            detail, ok, hint = await test(), True, ""
        except CheckError as error:
            detail, ok, hint = error.detail, False, error.hint
        except UpstreamError as error:
            detail, ok, hint = error.reason, False, self._advice.on(name, error)
        return Step(name, ok, round(time.monotonic() - begun, 3), quoted(detail), hint)

    async def _dns(self) -> str:
        found = []
        for host, port, setting in self._to_resolve():
            try:
                async with asyncio.timeout(self._config.connect_timeout):
                    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
            except TimeoutError:
                raise CheckError(f"{host}: no answer from the name servers", self._advice.name(setting)) from None
            except OSError as error:
                raise CheckError(f"{host}: {network_reason(error)}", self._advice.name(setting)) from None
            found.append(f"{host}: {', '.join(dict.fromkeys(str(info[4][0]) for info in infos))}")
        if self._access.http_proxy is not None:
            found.append(f"{urlsplit(self._config.api_url).hostname} is left to the proxy")
        return "; ".join(found)

    def _to_resolve(self) -> list[tuple[str, int, str]]:
        ways = [self._way()]
        if self._config.ws_enabled and self._access.stream_proxy is None:
            parts = urlsplit(self._config.ws_url)
            ways.append((parts.hostname or "", parts.port or _PORTS[parts.scheme], "ATOM_SAAS_WS_URL"))
        return ways if ways[0][0] != ways[-1][0] else ways[:1]

    def _way(self) -> tuple[str, int, str]:
        """Return host and port that HTTP connects to, and the setting that names them."""
        proxy = self._access.http_proxy
        parts = urlsplit(proxy.url.reveal() if proxy is not None else self._config.api_url)
        setting = proxy.setting if proxy is not None else "ATOM_SAAS_API_URL"
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80), setting

    async def _tcp(self) -> str:
        host, port, setting = self._way()
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                _, writer = await asyncio.open_connection(host, port, happy_eyeballs_delay=NEXT_ADDRESS_AFTER)
        except TimeoutError:
            detail = f"{host} port {port}: no answer within {self._config.connect_timeout:g} s"
            raise CheckError(detail, self._advice.port(setting)) from None
        except OSError as error:
            raise CheckError(f"{host} port {port}: {network_reason(error)}", self._advice.port(setting)) from None
        address = writer.get_extra_info("peername")[0]
        writer.close()
        return f"{'' if self._access.http_proxy is None else 'proxy '}{address} port {port}"

    async def _tls(self) -> str:
        proxy: Proxy | None = self._access.http_proxy
        if not self._config.api_url.startswith("https:") and not (proxy is not None and proxy.secure):
            return NOT_USED
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                return await open_tls(self._config.api_url, proxy=proxy, tls=self._access.tls)
        except TimeoutError:
            raise UpstreamTimeoutError(f"no TLS handshake within {self._config.connect_timeout:g} s") from None

    async def _health(self) -> str:
        assert self._market is not None
        answer = await self._market.health()
        status = str(answer.get("status", "no status"))
        if status.lower() in _NOT_IN_SERVICE:
            raise CheckError(f"the marketplace reports its status as {status}", self._advice.not_in_service())
        return f"{status}{self._clocks(self._market.server_offset)}"

    async def _token(self) -> str:
        """Read the categories. The next step reports any problem of theirs but a refused token."""
        assert self._market is not None
        try:
            await self._market.categories()
        except (UpstreamServerError, MalformedResponseError) as error:
            self._no_categories = error
        return "not refused"

    async def _listing(self) -> str:
        """Read one page of skills. A full sync needs the categories too; a wrong address makes both fail."""
        found = await self._skills()
        if (error := self._no_categories) is not None:
            raise CheckError(f"{found}, but no categories: {error.reason}", self._advice.no_categories(error))
        return found

    async def _skills(self) -> str:
        assert self._market is not None
        page = await self._market.skill_page(1, page_size=self._config.page_size)
        unread = len(page.refused)
        if unread:
            first = page.refused[0].refusal
            problem = f"{unread} of {page.rows} rows can't be read; the first: {first}"
            if unread == page.rows:
                raise CheckError(problem, self._advice.unreadable())
            return problem
        if not page.rows:
            return "no skills"
        total = "" if page.total is None else f" of {page.total:,}"
        return f"{page.rows:,}{total} skills on the first page"

    async def _websocket(self) -> str:
        if not self._config.ws_enabled:
            return f"{NOT_USED}: ATOM_SAAS_WS_ENABLED is false"
        self._stream = await Stream.open(self._config, self._access)
        return f"open{self._clocks(self._stream.server_offset)}"

    async def _heartbeat(self) -> str:
        stream = self._stream
        if stream is None:
            return NOT_USED
        received = 0

        def receive(event: object, raw: bytes) -> None:
            nonlocal received
            received += 1

        stream.ping_now()
        running = asyncio.create_task(stream.run(receive), name="checkup stream")
        answered = asyncio.create_task(stream.answered.wait(), name="checkup heartbeat")
        try:
            await asyncio.wait((running, answered), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                await running  # raises why it ended
            await stream.close()
        finally:
            answered.cancel()
            with contextlib.suppress(UpstreamError):
                await running
        return f"{stream.answered_by}{f', and {received} messages meanwhile' if received else ''}"

    @staticmethod
    def _clocks(offset: timedelta | None) -> str:
        if offset is None or abs(offset) < _CLOCKS_DIFFER:
            return ""
        way = "ahead of" if offset > timedelta(0) else "behind"
        minutes = math.ceil(abs(offset) / timedelta(minutes=1))
        return f"; its clock is {minutes:,} minutes {way} this machine's: is NTP on?"
