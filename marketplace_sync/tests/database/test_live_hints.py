"""Hints between processes, in one process: what they do to a feed that waits."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer, get_channel_layer

from marketplace_sync.live import hints
from marketplace_sync.live.hints import HintSender, hint_sender
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

pytestmark = pytest.mark.django_db(transaction=True)

# Without a hint, no change would arrive within the test's time.
NEVER_LOOKS = replace(QUICK, poll=3600.0)


def layer_at(url: str) -> dict[str, Any]:
    return {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [url]}}}


@pytest.fixture
def quickly_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "_RETRY_SECONDS", 0.05)


async def test_hint_delivers_a_change_immediately(redis_url: str, settings: Any) -> None:
    settings.CHANNEL_LAYERS = layer_at(redis_url)
    key, pen = await ask(agent_key), await ask(new_pen)
    hint = hint_sender()
    async with web(NEVER_LOOKS) as server, server.client(key) as client:
        await messages_until(client)
        await until(lambda: hints.GROUP in str(get_channel_layer().groups), "the hub listens")
        hint(await ask(pen.write, put("s1")))
        assert [change["seq"] for change in await changes_to(client, 1)] == [1]
    await get_channel_layer().flush()


class StuckLayer:
    """A layer whose sends never end."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.free = asyncio.Event()

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self.begun.append(message["seq"])
        await self.free.wait()


async def test_queued_hints_become_one() -> None:
    layer = StuckLayer()
    hint = HintSender(layer)
    hint(1)
    await until(lambda: layer.begun == [1], "the first is under way")
    for seq in (2, 3, 3, 2, 7):
        hint(seq)
    layer.free.set()
    await until(lambda: layer.begun == [1, 7], "the newest is sent")


async def test_hanging_channel_layer_delays_nobody(monkeypatch: pytest.MonkeyPatch, quickly_again: None) -> None:
    monkeypatch.setattr(hints, "_SEND_SECONDS", 0.05)
    layer = StuckLayer()
    hint = HintSender(layer)
    hint(1)
    await until(lambda: len(layer.begun) == 3, "it is given up and tried again")
    layer.free.set()
    hint(2)
    await until(lambda: layer.begun[-1] == 2, "it works again")


def test_no_hints_without_a_shared_channel_layer() -> None:
    assert isinstance(get_channel_layer(), InMemoryChannelLayer)
    assert hints.shared_layer() is None
    hint_sender()(1)  # outside any event loop: it does nothing at all
