"""Deliver changes to one client: from its place in the feed to the newest change, then each change as it comes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from marketplace_sync.live.hub import Hub, Subscriber
from marketplace_sync.live.messages import FeedFilter


class TooSlowError(Exception):
    """The client did not take a message in time."""


class Delivery:
    """Send one client what its filter admits. `send` takes a text and returns when the connection has taken it."""

    def __init__(
        self, hub: Hub, subscriber: Subscriber, feed_filter: FeedFilter, send: Callable[[str], Awaitable[None]]
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._filter = feed_filter
        self._send = send
        self._last_sent_at = 0.0

    async def run(self, after: int | None) -> NoReturn:
        """Send every change after that number, without end; `None`: from now on.

        Raise `FeedGoneError`, `TooSlowError`, and what the database or the connection raises.
        """
        hub = self._hub
        seq = await hub.newest() if after is None else after
        ready = False
        while True:
            text, upto = await hub.after(seq, self._filter)
            if text:
                await self._send_in_time(text)
            moved, seq = upto > seq, upto
            self._subscriber.seq = seq
            if moved:
                continue
            if not ready:
                ready = True
                await self._send_in_time(f'{{"type":"ready","seq":{seq}}}')
            try:
                async with asyncio.timeout_at(self._last_sent_at + hub.limits.heartbeat):
                    await hub.grown_beyond(seq)
            except TimeoutError:
                await self._heartbeat(seq)

    async def _heartbeat(self, seq: int) -> None:
        if self._hub.read_recently:
            await self._send_in_time(f'{{"type":"heartbeat","seq":{seq}}}')
        else:
            # A heartbeat means "nothing new"; while the feed cannot be read, that is unknown.
            self._last_sent_at = asyncio.get_running_loop().time()

    async def _send_in_time(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._hub.limits.send_timeout):
                await self._send(text)
        except TimeoutError:
            raise TooSlowError from None
        self._last_sent_at = asyncio.get_running_loop().time()
