"""Keep a steady rate, for replays and random changes."""

import asyncio
import time
from collections.abc import Awaitable, Callable

# A late loop catches up at most this much in one burst. A longer burst would exceed the client's rate limit.
MAX_CATCH_UP_SECONDS = 0.1
# Timers fire about 1 ms late, so a wait shorter than half of that is skipped.
_WORTH_WAITING = 0.0005
# The event loop gets its turn at least this often, whatever the rate.
_TURNS_BETWEEN_YIELDS = 64


class Pace:
    """Lets a loop run `rate` times per second; 0 is full speed. `clock` returns monotonic seconds."""

    def __init__(
        self, rate: float, *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due = clock()
        self._turns = 0

    async def turn(self) -> None:
        """Wait until the next turn is due."""
        self._turns += 1
        if not self._rate:
            if self._turns % _TURNS_BETWEEN_YIELDS == 0:
                await self._sleep(0)
            return
        now = self._clock()
        self._due = max(self._due, now - MAX_CATCH_UP_SECONDS)
        wait = self._due - now
        self._due += 1 / self._rate
        if wait > _WORTH_WAITING:
            await self._sleep(wait)
        elif self._turns % _TURNS_BETWEEN_YIELDS == 0:
            await self._sleep(0)
