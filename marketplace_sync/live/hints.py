"""Hints that the feed has grown, from the daemon to the web processes over the channel layer (law 12).

They save the wait for the next look and carry no facts: one that is lost, doubled or late changes nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from channels.layers import InMemoryChannelLayer, get_channel_layer

log = structlog.get_logger(__name__)

GROUP = "feed"
# A layer that takes longer is as good as away; meanwhile the web processes look by themselves.
_SEND_SECONDS = 1.0
_AWAY_SECONDS = 5.0


def shared_layer() -> Any | None:
    """The channel layer, where it reaches other processes."""
    layer = get_channel_layer()
    return None if layer is None or isinstance(layer, InMemoryChannelLayer) else layer


class Hinter:
    """Call it with the newest feed number after a commit, in the event loop: it neither waits nor raises.

    One hint at most is under way, and the next says the newest of all that came meanwhile.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._newest = self._told = 0
        self._telling: asyncio.Task[None] | None = None
        self._away = False

    def __call__(self, seq: int) -> None:
        if seq <= self._newest:
            return
        self._newest = seq
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell(), name="feed hint")

    async def _tell(self) -> None:
        while self._told < self._newest:
            seq = self._newest
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._layer.group_send(GROUP, {"type": "feed.grown", "seq": seq})
            except Exception as fault:  # noqa: BLE001 - the top of a task, and whatever a layer raises is no matter here
                if not self._away:
                    log.warning("hints_away", reason=str(fault) or type(fault).__name__)
                self._away = True
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                if self._away:
                    log.info("hints_back")
                self._told, self._away = seq, False


def hinter() -> Callable[[int], None]:
    """What the daemon calls after a commit; it does nothing where no channel layer reaches other processes."""
    layer = shared_layer()
    return Hinter(layer) if layer is not None else lambda _: None


async def listen(heard: Callable[[], None]) -> None:
    """Call `heard` for each hint, for ever; returns at once where none can come."""
    layer = shared_layer()
    if layer is None:
        return
    away = False
    while True:
        try:
            channel = await layer.new_channel()
            try:
                await layer.group_add(GROUP, channel)
                if away:
                    log.info("hints_heard_again")
                away = False
                while True:
                    await layer.receive(channel)
                    heard()
            finally:
                with suppress(Exception):
                    await layer.group_discard(GROUP, channel)
        except Exception as fault:  # noqa: BLE001 - the top of a task: without hints the feed is looked at all the same
            if not away:
                log.warning("no_hints", reason=str(fault) or type(fault).__name__)
            away = True
        await asyncio.sleep(_AWAY_SECONDS)
