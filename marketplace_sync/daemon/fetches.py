"""Single fetches: one request for one skill, where that saves a whole pass (law 6)."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import structlog

from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.write_queue import WriteQueue, WriterClosedError
from marketplace_sync.mirror.arrived import Arrived, Effect, Item, RefusedInput, SkillAbsent
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.upstream.errors import MalformedResponseError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)

# More skills than this to fetch one by one are better read by a pass: the budget allows 20 a minute.
MAX_WAITING = 20


class Fetcher:
    """Fetches what it is asked to, one after the other; what it can't becomes a gap.

    `loss` is called for a skill whose fetch was not to be had: a pass will bring it.
    """

    def __init__(
        self,
        market: MarketClient,
        queue: WriteQueue,
        arrivals: Arrivals,
        completeness: Completeness,
        loss: Callable[[], None],
    ) -> None:
        self._completeness = completeness
        self._market = market
        self._queue = queue
        self._arrivals = arrivals
        self._loss = loss
        self._waiting: OrderedDict[str, bool] = OrderedDict()  # skill -> must it be known?
        self._wake = asyncio.Event()

    def fetch(self, skill_id: str) -> None:
        """That skill must be fetched: a message about it could not be applied. A 404 proves it gone."""
        self._want(skill_id, must=True)

    def complete(self, skill_id: str) -> None:
        """That skill is known in part. Left as it is where the budget is used up: the next pass completes it."""
        self._want(skill_id, must=False)

    def _want(self, skill_id: str, *, must: bool) -> None:
        if skill_id not in self._waiting and len(self._waiting) >= MAX_WAITING:
            self._give_up(must=must)
            return
        self._waiting[skill_id] = must or self._waiting.get(skill_id, False)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled, or until the writer takes nothing more."""
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            if self._market.single_fetch_wait() > 0:
                for must in self._waiting.values():
                    self._give_up(must=must)
                self._waiting.clear()
                continue
            skill_id, must = self._waiting.popitem(last=False)
            try:
                await self._fetch(skill_id, must=must)
            except WriterClosedError:
                return

    async def _fetch(self, skill_id: str, *, must: bool) -> None:
        begun = [0]

        def note() -> None:
            begun[0] = self._arrivals.next()

        items: list[Item] = []
        try:
            record = await self._market.skill(skill_id, begun=note)
        except MalformedResponseError as fault:
            if fault.refusal is None:
                self._failed(skill_id, fault, must=must)
                return
            # The marketplace has it and it can't be read: known now, and no reason to read everything.
            letter = RefusedInput.of(fault.refusal, fault.body, DeadLetter.Source.FETCH)
            items.append(letter)
        except UpstreamError as fault:
            self._failed(skill_id, fault, must=must)
            return
        else:
            if record is not None:
                items.append(Arrived(record, begun[0], FeedChange.Source.LISTING, polled=True))
            elif must:
                items.append(Arrived(SkillAbsent(skill_id), begun[0], FeedChange.Source.LISTING, polled=True))
        if Effect.REFUSED in await self._queue.submit(items):
            self._completeness.refused(skill_id)
        else:
            self._completeness.fetched(skill_id)

    def _failed(self, skill_id: str, fault: UpstreamError, *, must: bool) -> None:
        log.warning("fetch_failed", skill_id=skill_id, reason=fault.reason)
        self._give_up(must=must)

    def _give_up(self, *, must: bool) -> None:
        if must:
            self._loss()
