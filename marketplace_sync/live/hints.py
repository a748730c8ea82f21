"""Hints that the feed has grown, from the daemon to the web processes over the channel layer (law 12).

They save the wait for the next poll and carry no facts: a hint that is lost, repeated or late changes nothing else.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from channels.layers import InMemoryChannelLayer, get_channel_layer

log = structlog.get_logger(__name__)

GROUP = "feed"
# A layer that takes longer counts as unreachable. Meanwhile the web processes poll.
_SEND_SECONDS = 1.0
_RETRY_SECONDS = 5.0


def shared_layer() -> Any | None:
    """Return the channel layer; `None` if it does not reach other processes."""
    layer = get_channel_layer()
    return None if layer is None or isinstance(layer, InMemoryChannelLayer) else layer


class HintSender:
    """Call it with the newest feed number after a commit, in the event loop: it neither waits nor raises.

    At most one hint is being sent. The next one carries the newest of all numbers that came meanwhile.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._newest = self._sent = 0
        self._sending: asyncio.Task[None] | None = None
        self._unreachable = False

    def __call__(self, seq: int) -> None:
        if seq <= self._newest:
            return
        self._newest = seq
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send(), name="feed hint")

    async def _send(self) -> None:
        while self._sent < self._newest:
            seq = self._newest
            try:
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._layer.group_send(GROUP, {"type": "feed.grown", "seq": seq})
            except Exception as error:  # noqa: BLE001 - the top of a task; a layer may raise anything, and polling goes on
                if not self._unreachable:
                    log.warning("hints_away", reason=str(error) or type(error).__name__)
                self._unreachable = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                if self._unreachable:
                    log.info("hints_back")
                self._sent, self._unreachable = seq, False


def hint_sender() -> Callable[[int], None]:
    """Return what the daemon calls after a commit; it does nothing if no channel layer reaches other processes."""
    layer = shared_layer()
    return HintSender(layer) if layer is not None else lambda _: None


async def listen(on_hint: Callable[[], None]) -> None:
    """Call `on_hint` for each hint, without end. Return immediately if no channel layer reaches other processes."""
    layer = shared_layer()
    if layer is None:
        return
    unreachable = False
    while True:
        try:
            channel = await layer.new_channel()
            try:
                await layer.group_add(GROUP, channel)
                if unreachable:
                    log.info("hint_listener_back")
                unreachable = False
                while True:
                    await layer.receive(channel)
                    on_hint()
            finally:
                with suppress(Exception):
                    await layer.group_discard(GROUP, channel)
        except Exception as error:  # noqa: BLE001 - the top of a task; without hints the hub still polls
            if not unreachable:
                log.warning("hint_listener_away", reason=str(error) or type(error).__name__)
            unreachable = True
        await asyncio.sleep(_RETRY_SECONDS)
