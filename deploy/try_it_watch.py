"""Watch the service in `try_it.py`: request pages repeatedly, and follow the feed."""

import asyncio
import json
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

EVERY_SECONDS = 0.1
ADMIN_EVERY = 10  # of them, one is the admin's page, which costs twenty times as much as the API's
TIMEOUT_SECONDS = 5.0
PAGE = "/api/skills/?page_size=20"
ADMIN_PAGE = "/admin/marketplace_sync/skill/"


@dataclass(frozen=True)
class Looked:
    """The outcome of the requests for pages: `gap` is the longest time without an answer, in seconds."""

    asked: int
    failed: int
    elsewhere: int
    gap: float
    median: float


class Visits:
    """Requests pages from each web process in turn; when it does not answer, from the other one, like the proxy."""

    def __init__(self, ports: Sequence[int], key: str, password: str) -> None:
        self._password = password
        headers = {"Authorization": f"Bearer {key}"}
        self._clients = [self._client(port, headers) for port in ports]
        self._people = [self._client(port, {}) for port in ports]
        self._logged_in = False
        self._turn = 0
        self._seen: list[tuple[float, float, bool, bool]] = []  # asked, answered, well, by the other process

    @staticmethod
    def _client(port: int, headers: dict[str, str]) -> httpx2.AsyncClient:
        base = f"http://127.0.0.1:{port}"
        return httpx2.AsyncClient(base_url=base, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)

    async def log_in(self) -> None:
        """Log in at one web process; the session is valid at the other one too."""
        here, there = self._people
        form = await here.get("/admin/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
        assert token is not None
        form = {"username": "operator", "password": self._password, "csrfmiddlewaretoken": token[1]}
        answer = await here.post("/admin/login/", data=form)
        assert answer.status_code == 302, answer.status_code
        for name, value in here.cookies.items():
            there.cookies.set(name, value)
        self._logged_in = True

    async def run(self) -> None:
        """Request pages until cancelled; a slow answer delays no other request."""
        async with asyncio.TaskGroup() as asking:
            for number in range(10**9):
                admin = self._logged_in and number % ADMIN_EVERY == 0
                asking.create_task(self._look(ADMIN_PAGE if admin else PAGE, self._people if admin else self._clients))
                await asyncio.sleep(EVERY_SECONDS)

    async def _look(self, path: str, clients: Sequence[httpx2.AsyncClient]) -> None:
        began = time.monotonic()
        answer, elsewhere = await self._ask("GET", path, clients)
        well = answer is not None and answer.status_code == httpx2.codes.OK
        self._seen.append((began, time.monotonic(), well, elsewhere))

    async def _ask(
        self, method: str, path: str, clients: Sequence[httpx2.AsyncClient]
    ) -> tuple[httpx2.Response | None, bool]:
        self._turn += 1
        first = self._turn % len(clients)
        for tried in range(len(clients)):
            with suppress(httpx2.TransportError):
                return await clients[(first + tried) % len(clients)].request(method, path), tried > 0
        return None, True

    async def get(self, path: str) -> httpx2.Response | None:
        """Return an answer of the API; `None` when neither process gives one."""
        return (await self._ask("GET", path, self._clients))[0]

    async def post(self, path: str, body: dict[str, object]) -> httpx2.Response | None:
        self._turn += 1
        with suppress(httpx2.TransportError):
            return await self._clients[self._turn % len(self._clients)].post(path, json=body, timeout=60)
        return None

    async def answers(self, number: int) -> bool:
        """Return whether this web process answers."""
        with suppress(httpx2.TransportError):
            return (await self._clients[number].get(PAGE)).status_code == httpx2.codes.OK
        return False

    def since(self, began: float) -> Looked:
        """Return the visits since that time."""
        seen = [look for look in self._seen if look[0] >= began]
        well = sorted(answered for _, answered, well, _ in seen if well)
        gaps = [later - sooner for sooner, later in pairwise(well)]
        return Looked(
            asked=len(seen),
            failed=sum(not look[2] for look in seen),
            elsewhere=sum(look[2] and look[3] for look in seen),
            gap=max(gaps, default=0.0),
            median=statistics.median([look[1] - look[0] for look in seen if look[2]] or [0.0]),
        )

    async def close(self) -> None:
        for client in (*self._clients, *self._people):
            await client.aclose()


@dataclass(frozen=True)
class Observed:
    """The changes that a feed client received; `silence` is the longest time without one."""

    received: int
    silence: float
    reconnects: int


class FeedClient:
    """Builds a copy from the feed alone; when disconnected, it continues at the other web process."""

    def __init__(self, ports: Sequence[int], key: str) -> None:
        self._ports = ports
        self._headers = {"Authorization": f"Bearer {key}"}
        self.last = 0
        self.skills: dict[str, dict[str, Any]] = {}
        self.categories: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._heard: list[float] = []
        self._cut: list[float] = []
        self._lags: list[float] = []

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        turn = 0
        while True:
            port = self._ports[turn % len(self._ports)]
            turn += 1
            with suppress(OSError, WebSocketException, TimeoutError):
                await self._follow(port)
            self._cut.append(time.monotonic())
            await asyncio.sleep(0.1)

    async def _follow(self, port: int) -> None:
        url = f"ws://127.0.0.1:{port}/ws/changes/?after={self.last}"
        async with connect(
            url, additional_headers=self._headers, proxy=None, max_size=None, open_timeout=TIMEOUT_SECONDS,
            close_timeout=1,
        ) as feed:  # fmt: skip
            while True:
                async with asyncio.timeout(45):
                    message = json.loads(await feed.recv())
                for change in message.get("changes", ()):
                    self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        if change["seq"] != self.last + 1:
            self.problems.append(f"the client received {change['seq']} after {self.last}")
        self.last = change["seq"]
        self._heard.append(time.monotonic())
        self._lags.append(time.time() - datetime.fromisoformat(change["at"]).timestamp())
        stored = self.categories if change["kind"].startswith("category") else self.skills
        what = change["kind"].rpartition("_")[2]
        if what == "deleted":
            stored.pop(change["key"], None)
        elif what == "created":
            stored[change["key"]] = dict(change["data"])
        else:
            stored[change["key"]].update(change["data"])

    async def at(self, seq: int) -> bool:
        """Return whether all changes up to that number have been received."""
        return self.last >= seq

    def since(self, began: float) -> Observed:
        """Return what was received since that time."""
        heard = [began, *(at for at in self._heard if at >= began)]
        silence = max((later - sooner for sooner, later in pairwise(heard)), default=0.0)
        return Observed(len(heard) - 1, silence, sum(at >= began for at in self._cut))

    def lag(self, share: float) -> float:
        """Return the lag from commit to client in seconds, for this share of the changes, catching up included."""
        lags = sorted(self._lags) or [0.0]
        return lags[min(int(len(lags) * share), len(lags) - 1)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as text in aligned columns."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "  ".join("-" * width for width in widths), *lines[1:]))
