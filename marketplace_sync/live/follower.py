"""One client of the feed: taken from its place to the newest change, and kept there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from marketplace_sync.live.entries import Wanted
from marketplace_sync.live.hub import Hub, Subscriber


class TooSlowError(Exception):
    """The client has not taken a message in time."""


class Follower:
    """What one client is sent: `send` takes a text and returns when the connection has taken it."""

    def __init__(self, hub: Hub, seat: Subscriber, wanted: Wanted, send: Callable[[str], Awaitable[None]]) -> None:
        self._hub = hub
        self._seat = seat
        self._wanted = wanted
        self._send = send
        self._spoke_at = 0.0

    async def follow(self, after: int | None) -> NoReturn:
        """Send what comes after that number, for ever; `None`: from now on.

        Raises `FeedGoneError`, `TooSlowError`, and what the database or the connection raises.
        """
        hub = self._hub
        seq = await hub.newest() if after is None else after
        ready = False
        while True:
            text, upto = await hub.after(seq, self._wanted)
            if text:
                await self._say(text)
            moved, seq = upto > seq, upto
            self._seat.seq = seq
            if moved:
                continue
            if not ready:
                ready = True
                await self._say(f'{{"type":"ready","seq":{seq}}}')
            try:
                async with asyncio.timeout_at(self._spoke_at + hub.limits.heartbeat):
                    await hub.grown_beyond(seq)
            except TimeoutError:
                await self._beat(seq)

    async def _beat(self, seq: int) -> None:
        if self._hub.looked_lately:
            await self._say(f'{{"type":"heartbeat","seq":{seq}}}')
        else:
            # Nobody knows whether there is anything new: to say nothing is the truth.
            self._spoke_at = asyncio.get_running_loop().time()

    async def _say(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._hub.limits.taken_within):
                await self._send(text)
        except TimeoutError:
            raise TooSlowError from None
        self._spoke_at = asyncio.get_running_loop().time()
