"""Serve the simulated marketplace on one port."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from marketplace_sync.simulator.announce import Announcer
from marketplace_sync.simulator.budget import RequestWindow
from marketplace_sync.simulator.churn import flood
from marketplace_sync.simulator.connection import ClientConnection, reset
from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.http import DOCUMENTED, Api
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.stream import CLOSE_TIMEOUT, StreamServer
from marketplace_sync.simulator.variant import Variant

logger = logging.getLogger(__name__)

# Beyond this the older half of the request log is dropped, so that a simulator can run for weeks.
MAX_LOGGED = 100_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatorServer:
    """Serves a `Marketplace`; use as `async with`. `port` 0: any free one.

    `requests_per_minute` and `connects_per_minute`: 0: no limit. `heartbeat_interval`: seconds between our JSON
    pings, 0: none; a client that sends nothing within `pong_timeout` of one is disconnected.
    `now` is the clock and returns aware times; `clock_skew` is added to it in headers and stamps. `variant` is the
    deployment to simulate.

    For tests: `clients` (open streams), `requests` (method, path with query, status; 0 for a reset), `connects`
    (monotonic times of handshake attempts), `accepted` (TCP connections so far), `heard` (counts
    what stream clients sent, by type).
    """

    def __init__(
        self, market: Marketplace, token: str = "sim-token", host: str = "127.0.0.1", port: int = 0, *,
        requests_per_minute: int = 100, heartbeat_interval: float = 30.0, connects_per_minute: int = 10,
        pong_timeout: float = 10.0, compress: bool = True, now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic, variant: Variant = DOCUMENTED,
    ) -> None:  # fmt: skip
        self.market = market
        self.token = token
        self.host = host
        self.port = port
        self.heartbeat_interval = heartbeat_interval
        self.pong_timeout = pong_timeout
        self.compress = compress
        self.monotonic = monotonic
        self.variant = variant
        self.clock_skew = timedelta()
        self.request_window = RequestWindow(requests_per_minute)
        self.connect_window = RequestWindow(connects_per_minute)
        self.faults = FaultSet(on_add=self._fault_added)
        self.requests: list[tuple[str, str, int]] = []
        self.connects: list[float] = []
        self.accepted = 0
        self.heard: Counter[str] = Counter()
        # Awaited with the path and query before each answer, so that the catalogue can change between two pages.
        self.on_request: Callable[[str], Awaitable[None]] | None = None
        # Called when a stream has opened (True) or ended (False).
        self.on_stream: Callable[[bool], None] | None = None
        self.stream_opened = asyncio.Event()
        self._now = now
        self._streams: dict[StreamServer, None] = {}
        self._announcer = Announcer(market, self.faults, self._streams.keys())
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._failure: BaseException | None = None
        self.api = Api(market, self.faults, token, self.moment, variant)
        market.now = self.moment

    @property
    def clients(self) -> int:
        return len(self._streams)

    @property
    def backlog(self) -> int:
        """Return the bytes that were written to streams and not read by their clients."""
        return sum(stream.writer.transport.get_write_buffer_size() for stream in self._streams)

    @property
    def _authority(self) -> str:
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"http://{self._authority}{self.variant.base}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self._authority}{self.variant.ws_path}"

    def moment(self) -> datetime:
        """Return the time by the marketplace's own clock."""
        return self._now() + self.clock_skew

    async def __aenter__(self) -> Self:
        if self._listener is None:
            await self.listen()
        self.market.listeners.append(self._announcer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.market.listeners.remove(self._announcer)
        self._announcer.close()
        for stream in self._streams:
            stream.close(1001, "going away")
        await self.hang_up()
        if self._failure is not None and error is None:
            raise self._failure

    async def listen(self) -> None:
        """Listen on the port; after `hang_up`, on the same one again. Raises `OSError` when it is taken."""
        self._listener = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def hang_up(self) -> None:
        """Stop listening and end every connection. The operating system then refuses connects."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        tasks, writers = tuple(self._tasks), tuple(self._writers)
        for task in tasks:
            task.cancel()
        # Closing sends what is written; a client that reads nothing would delay it forever.
        _, late = await asyncio.wait(tasks, timeout=0.5) if tasks else (None, set())
        for writer in writers:
            writer.transport.abort()
        if late:
            await asyncio.wait(late)
        # Last: since Python 3.12 it waits for every connection that the listener has accepted.
        if listener is not None:
            await listener.wait_closed()

    def send_raw(self, payload: str | bytes, *, binary: bool | None = None) -> None:
        """Send `payload` unchanged to every stream. `binary` `None`: text as a text frame, bytes as a binary one."""
        as_binary = isinstance(payload, bytes) if binary is None else binary
        data = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
        for stream in tuple(self._streams):
            (stream.send_binary if as_binary else stream.send_text)(data)

    async def drop_connections(self, code: int | None = None) -> None:
        """End every stream: reset (`None`), or closed with `code`. Returns when all of them have ended."""
        streams = tuple(self._streams)
        for stream in streams:
            if code is None:
                reset(stream.writer)
            else:
                stream.close(code)
        await self.until(lambda: not self._streams.keys() & set(streams), timeout=CLOSE_TIMEOUT + 3)

    async def drain(self) -> None:
        """Wait until every stream's client has read enough to be sent more."""
        for stream in tuple(self._streams):
            await stream.drain()

    async def until(self, predicate: Callable[[], object], timeout: float = 5) -> None:
        """Return when `predicate()` is true. Raises `TimeoutError` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Not true within {timeout} s: {predicate}")
            await asyncio.sleep(0.005)

    def log_request(self, method: str, target: str, status: int) -> None:
        self.requests.append((method, target, status))
        if len(self.requests) > MAX_LOGGED:
            del self.requests[: MAX_LOGGED // 2]

    @contextlib.contextmanager
    def registered(self, stream: StreamServer) -> Iterator[None]:
        """Send every event to the stream while the context is open."""
        self._streams[stream] = None
        self._announcer.greet(stream)
        self.stream_opened.set()
        if self.on_stream is not None:
            self.on_stream(True)
        self._flood_if_set()
        try:
            yield
        finally:
            del self._streams[stream]
            if self.on_stream is not None:
                self.on_stream(False)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        task = self._spawn(ClientConnection(self, reader, writer).serve(), "simulator connection")
        task.add_done_callback(lambda _: self._writers.discard(writer))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.error("A task of the simulator failed: %s", task.get_name(), exc_info=failure)
            self._failure = self._failure or failure

    def _fault_added(self, name: str) -> None:
        if name == "stale-page":
            self.api.stale = self.market.snapshot()
        if name == "flood" and self._streams:
            self._flood_if_set()

    def _flood_if_set(self) -> None:
        if (fault := self.faults.take("flood")) is not None:
            self._spawn(flood(self.market, self.drain, fault["count"]), "simulator flood")
