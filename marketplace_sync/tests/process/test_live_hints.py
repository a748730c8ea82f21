"""Hints between processes: with them a change arrives immediately, without them a little later."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from channels.layers import get_channel_layer

from marketplace_sync.live import hints
from marketplace_sync.live.hints import HintSender, hint_sender, listen
from marketplace_sync.tests.database.test_live_hints import NEVER_LOOKS, layer_at
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.live_feed import (
    QUICK,
    agent_key,
    ask,
    changes_to,
    messages_until,
    new_pen,
    put,
    until,
    web,
)
from marketplace_sync.tests.support.processes import Environment, programs, settings_for

pytestmark = pytest.mark.django_db(transaction=True)


class Doorway:
    """A way to a service that can be shut: who is in is thrown out, who comes is turned away."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._behind = parts.hostname or "127.0.0.1", parts.port or 6379
        self._open = True
        self._inside: set[asyncio.StreamWriter] = set()
        self.turned_away = 0
        self.port = 0
        self._parts = parts

    @property
    def url(self) -> str:
        return urlunsplit(self._parts._replace(netloc=f"127.0.0.1:{self.port}"))

    def shut(self) -> None:
        self._open = False
        for writer in self._inside:
            writer.transport.abort()

    def open(self) -> None:
        self._open = True

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            self.turned_away += 1
            writer.transport.abort()
            return
        behind_reader, behind_writer = await asyncio.open_connection(*self._behind)
        self._inside |= {writer, behind_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, behind_writer))
                tasks.create_task(self._copy(behind_reader, writer))
        finally:
            self._inside -= {writer, behind_writer}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
        except OSError:
            pass  # shut
        finally:
            writer.close()


@asynccontextmanager
async def doorway(url: str) -> AsyncIterator[Doorway]:
    way = Doorway(url)
    server = await asyncio.start_server(way.forward, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    async with server:
        yield way
        way.shut()
        await get_channel_layer().flush()
        await until(lambda: not way._inside, "all have left")


@pytest.fixture
def quickly_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "_RETRY_SECONDS", 0.05)


@pytest.fixture
def quiet_layer() -> Iterator[None]:
    """channels_redis logs a traceback a second while Redis is away."""
    logger = logging.getLogger("channels_redis.pubsub")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


async def test_redis_outage_only_delays_changes(
    redis_url: str, settings: Any, quickly_again: None, quiet_layer: None
) -> None:
    async with doorway(redis_url) as way:
        settings.CHANNEL_LAYERS = layer_at(way.url)
        key, pen = await ask(agent_key), await ask(new_pen)
        hint, heard = HintSender(get_channel_layer()), []
        listening = asyncio.create_task(listen(lambda: heard.append(None)))
        async with web(QUICK) as server, server.client(key) as client:
            await messages_until(client)
            await until(lambda: len(get_channel_layer().channels) == 2, "both listen")
            hint(await ask(pen.write, put("s1")))
            await changes_to(client, 1)
            await until(lambda: heard, "the hint was heard")

            way.shut()
            for number in (2, 3):
                hint(await ask(pen.write, put(f"s{number}")))
                await changes_to(client, number)
            await until(lambda: way.turned_away > 3, "they try again")
            async with server.client(key, "?after=1") as another:
                assert [change["seq"] for change in await changes_to(another, 3)] == [2, 3]

            way.open()
            heard.clear()
            seq = 3

            async def heard_again() -> None:
                nonlocal seq
                while not heard:  # ends by the test's time-out
                    seq += 1
                    hint(await ask(pen.write, put(f"s{seq}")))
                    await changes_to(client, seq)

            await heard_again()
        listening.cancel()
        await asyncio.wait([listening])


async def test_missing_redis_only_delays_changes(settings: Any, quickly_again: None, quiet_layer: None) -> None:
    async with doorway("redis://127.0.0.1:1/0") as way:
        way.shut()
        settings.CHANNEL_LAYERS = layer_at(way.url)
        key, pen = await ask(agent_key), await ask(new_pen)
        hint = hint_sender()
        async with web(QUICK) as server, server.client(key) as client:
            await messages_until(client)
            hint(await ask(pen.write, put("s1")))
            assert [change["seq"] for change in await changes_to(client, 1)] == [1]
            await until(lambda: way.turned_away > 3, "they try again")


async def test_the_daemon_and_the_web_server_need_no_redis(program_environment: Environment) -> None:
    key = await ask(agent_key)
    async with marketplace(skills=3) as server:
        with programs(program_environment(**settings_for(server))) as started:
            started.start("runsync")
            async with web() as site, site.client(key, "?after=0") as client:
                found = await changes_to(client, 4)
                server.market.delete_skill("skill-00001")
                found += await changes_to(client, 5)
    assert [change["seq"] for change in found] == [1, 2, 3, 4, 5]
    assert (found[-1]["kind"], found[-1]["key"], found[-1]["source"]) == ("skill_deleted", "skill-00001", "stream")


async def test_the_daemon_hints_after_each_commit(
    redis_url: str, settings: Any, program_environment: Environment
) -> None:
    settings.CHANNEL_LAYERS = layer_at(redis_url)
    key = await ask(agent_key)
    async with marketplace(skills=3) as server:
        with programs(program_environment(**settings_for(server), REDIS_URL=redis_url)) as started:
            async with web(NEVER_LOOKS) as site, site.client(key, "?after=0") as client:
                assert (await messages_until(client))[-1]["seq"] == 0
                await until(lambda: hints.GROUP in str(get_channel_layer().groups), "the hub listens")
                started.start("runsync")
                found = await changes_to(client, 4)
    assert [change["seq"] for change in found] == [1, 2, 3, 4]
    await get_channel_layer().flush()
