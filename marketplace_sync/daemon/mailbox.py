"""Pass requests for single fetches and full syncs from one part of the daemon to another."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.engine.schedule import Schedule

# More skills than this are better read by a full sync: the budget allows 20 single fetches per minute.
MAX_FETCHES = 20


class Mailbox:
    """Keep the fetches that `Fetcher` takes, and the `schedule` of full syncs that `SyncLoop` follows.

    Senders need a reference to the mailbox only. No method but `next_fetch` waits. `loss` is cheap, because a flood
    calls it for each message.
    """

    def __init__(self, schedule: Schedule, completeness: Completeness, clock: Callable[[], float]) -> None:
        self.schedule = schedule
        self.sync_wanted = asyncio.Event()  # the schedule may have an earlier due time
        self._completeness = completeness
        self._clock = clock
        self._fetches: OrderedDict[str, bool] = OrderedDict()  # by skill id: whether a failure needs a full sync
        self._fetch_wanted = asyncio.Event()

    def fetch(self, skill_id: str) -> None:
        """Ask for a skill whose message could not be applied. A 404 proves its removal; a failure is a gap."""
        self._put(skill_id, must=True)

    def complete(self, skill_id: str) -> None:
        """Ask for a skill that is stored in part. A failure leaves it to the next full sync."""
        self._put(skill_id, must=False)

    def loss(self) -> None:
        """Report a gap: something was not applied, and only a full sync brings it."""
        self._completeness.lost()
        self.schedule.loss(self._clock())
        self.sync_wanted.set()

    def poll_now(self) -> None:
        """Ask for a full sync now: polling has replaced the stream."""
        self.schedule.poll_now(self._clock())
        self.sync_wanted.set()

    async def next_fetch(self) -> tuple[str, bool]:
        """Wait for the next skill to fetch. Return it, and whether a failure is a gap."""
        while not self._fetches:
            self._fetch_wanted.clear()
            await self._fetch_wanted.wait()
        return self._fetches.popitem(last=False)

    def give_up_fetches(self) -> None:
        """Leave all fetches to a full sync."""
        needed = any(self._fetches.values())
        self._fetches.clear()
        if needed:
            self.loss()

    def _put(self, skill_id: str, *, must: bool) -> None:
        if skill_id in self._fetches or len(self._fetches) < MAX_FETCHES:
            self._fetches[skill_id] = must or self._fetches.get(skill_id, False)
            self._fetch_wanted.set()
        elif must:
            self.loss()
