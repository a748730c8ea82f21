"""A writer of the mirror, a web server with the live feed, and its clients, in one event loop, for tests."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import uvicorn
from asgiref.testing import ApplicationCommunicator
from channels.routing import ProtocolTypeRouter
from websockets.asyncio.client import ClientConnection, connect

from marketplace_sync.governance.actions import IssueKey, RegisterAgent
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.live.consumers import FeedConsumer
from marketplace_sync.live.database_thread import DatabaseThread
from marketplace_sync.live.hub import Hub
from marketplace_sync.live.limits import SubscriptionLimits
from marketplace_sync.live.routing import websockets
from marketplace_sync.mirror.apply import apply_batch
from marketplace_sync.mirror.arrived import Arrived
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.models import FeedChange
from marketplace_sync.protocol.events import SKILL_EMPTY, CategoryRecord, RatingChanged, SkillDeleted, SkillRecord
from marketplace_sync.protocol.stamps import Stamp

T = TypeVar("T")

# A test that waits this long for something has found a fault.
PATIENCE = 40.0
PATH = "/ws/changes/"
# Quick looks, and no heartbeat in the way of a test that does not ask for one.
QUICK = SubscriptionLimits(poll=0.02, gap=0.005, heartbeat=60.0, retry=0.05)
_DAWN = datetime(2026, 1, 1, tzinfo=UTC)


class Pen:
    """Writes changes by the one way into the mirror, each later than the one before."""

    def __init__(self, lease: Lease, first: int = 1) -> None:
        self.lease = lease
        self.count = first - 1

    def write(self, *events: Callable[[Stamp], Any]) -> int:
        """Apply these in one transaction; the newest feed number."""
        items = []
        for event in events:
            self.count += 1
            stamp = Stamp((_DAWN + timedelta(seconds=self.count)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z"))
            items.append(Arrived(event(stamp), self.count, FeedChange.Source.STREAM))
        return apply_batch(items, self.lease).feed_seq


def put(skill_id: str, **fields: Any) -> Callable[[Stamp], Any]:
    """Create a skill, or set these fields of it change."""
    return lambda stamp: SkillRecord(skill_id, {**SKILL_EMPTY, "name": skill_id, **fields}, {}, stamp)


def change(skill_id: str, **fields: Any) -> Callable[[Stamp], Any]:
    return lambda stamp: SkillRecord(skill_id, {"name": skill_id, **fields}, {}, stamp)


def rate(skill_id: str, average: float, count: int) -> Callable[[Stamp], Any]:
    return lambda stamp: RatingChanged(skill_id, 5, {"average_rating": average, "rating_count": count}, stamp)


def remove(skill_id: str) -> Callable[[Stamp], Any]:
    return lambda stamp: SkillDeleted(skill_id, stamp)


def category(name: str, **fields: Any) -> Callable[[Stamp], Any]:
    return lambda stamp: CategoryRecord(name, fields, stamp)


def new_pen() -> Pen:
    return Pen(acquire("tester"))


def agent_key(name: str = "reader", maturity: Maturity = Maturity.STUDENT) -> str:
    """Return a new agent's key, as it shows it."""
    RegisterAgent(name, maturity, actor=COMMAND_LINE).perform()
    return IssueKey(name, actor=COMMAND_LINE).perform().raw


async def ask(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run something that uses the database, in a thread that leaves no connection behind."""
    thread = DatabaseThread("test")
    try:
        return await thread.run(function, *args, **kwargs)
    finally:
        await thread.close_connection()


async def until(true: Callable[[], Any], what: str) -> None:
    """Wait until `true()`; fails with `what`."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"waited {PATIENCE:g} s in vain until {what}"
        await asyncio.sleep(0.005)


class Web:
    """A web process: its hub, and where it listens."""

    def __init__(self, hub: Hub, server: uvicorn.Server, port: int) -> None:
        self.hub = hub
        self.port = port
        self._server = server

    @property
    def connections(self) -> int:
        """Return the number of open connections of the server."""
        return len(self._server.server_state.connections)

    @asynccontextmanager
    async def client(self, key: str, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
        """Yield a connection, open, that shows this key."""
        headers = {"Authorization": f"Bearer {key}"}
        url = f"ws://127.0.0.1:{self.port}{PATH}{query}"
        async with connect(url, additional_headers=headers, proxy=None, max_size=None, **options) as connection:
            yield connection


@asynccontextmanager
async def web(
    limits: SubscriptionLimits = QUICK, port: int = 0, http: Any = None, **options: Any
) -> AsyncIterator[Web]:
    """Yield a web process on that port, or a free one; it ends with the context. `http`: serves all but the feed."""
    hub = Hub(limits)
    listener = socket.create_server(("127.0.0.1", port))
    feed = websockets(FeedConsumer(hub))
    application = ProtocolTypeRouter({"http": http, "websocket": feed}) if http else feed
    config = uvicorn.Config(application, lifespan="off", log_config=None, timeout_graceful_shutdown=2, **options)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        await until(lambda: server.started or serving.done(), "the web server listens")
        yield Web(hub, server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving
        listener.close()
        await until(lambda: not hub.running, "the hub has ended")


async def messages_until(connection: ClientConnection, until_type: str = "ready") -> list[dict[str, Any]]:
    """Return the messages up to and with the first of that type."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE):
        while not messages or messages[-1]["type"] != until_type:
            messages.append(json.loads(await connection.recv()))
    return messages


async def changes_to(connection: ClientConnection, seq: int) -> list[dict[str, Any]]:
    """Return the changes up to that number, which must be sent."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(PATIENCE):
        while not found or found[-1]["seq"] < seq:
            found += json.loads(await connection.recv()).get("changes", ())
    return found


class Visitor:
    """A client without sockets: what the application sends, as an ASGI server would see it."""

    def __init__(
        self,
        hub: Hub,
        query: str = "",
        headers: Sequence[tuple[str, str]] = (),
        path: str = PATH,
        *,
        scheme: str = "ws",
        host: str = "127.0.0.1:8000",
    ) -> None:
        headers = [("Host", host), *headers]
        scope = {
            "type": "websocket",
            "scheme": scheme,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "subprotocols": [],
        }
        self._application = ApplicationCommunicator(websockets(FeedConsumer(hub)), scope)

    async def connected(self) -> dict[str, Any]:
        """Return what the application answers to the handshake."""
        await self._application.send_input({"type": "websocket.connect"})
        return await self.next_event()

    async def __aenter__(self) -> "Visitor":
        assert (await self.connected())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._application.send_input({"type": "websocket.disconnect", "code": 1000})
        await self._application.wait(PATIENCE)

    @property
    def unread(self) -> int:
        """How many things the application has sent that were not looked at."""
        return self._application.output_queue.qsize()

    async def next_event(self) -> dict[str, Any]:
        """Return the next thing the application sends."""
        return await self._application.receive_output(PATIENCE)

    async def message(self) -> dict[str, Any]:
        """Return the next message."""
        event = await self.next_event()
        assert event["type"] == "websocket.send", event
        return json.loads(event["text"])

    async def changes_to(self, seq: int) -> list[dict[str, Any]]:
        """Return the changes up to that number, which must be sent."""
        found: list[dict[str, Any]] = []
        while not found or found[-1]["seq"] < seq:
            found += (await self.message()).get("changes", ())
        return found

    async def closed(self) -> tuple[int, str]:
        """Code and reason with which the application closes; nothing else may come before."""
        event = await self.next_event()
        assert event["type"] == "websocket.close", event
        return event["code"], event["reason"]


def bearer(key: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key}")]
