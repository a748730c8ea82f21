"""Fetch single skills, where that saves a full sync (law 6)."""

import structlog

from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.mailbox import Mailbox
from marketplace_sync.daemon.session import Session
from marketplace_sync.daemon.write_queue import WriterClosedError
from marketplace_sync.mirror.arrived import Arrived, Effect, Item, RefusedInput, SkillAbsent
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.upstream.errors import MalformedResponseError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)


class Fetcher:
    """Fetch one after the other the skills that the mailbox asks for. What cannot be fetched becomes a gap."""

    def __init__(self, market: MarketClient, session: Session, mailbox: Mailbox, completeness: Completeness) -> None:
        self._market = market
        self._session = session
        self._mailbox = mailbox
        self._completeness = completeness

    async def run(self) -> None:
        """Fetch until cancelled, or until the writer is closed."""
        while True:
            skill_id, must = await self._mailbox.next_fetch()
            if self._market.single_fetch_wait() > 0:
                self._failed(must=must)
                self._mailbox.give_up_fetches()
                continue
            try:
                await self._fetch(skill_id, must=must)
            except WriterClosedError:
                return

    async def _fetch(self, skill_id: str, *, must: bool) -> None:
        try:
            items = await self._items(skill_id, must=must)
        except UpstreamError as error:
            log.warning("fetch_failed", skill_id=skill_id, reason=error.reason)
            self._failed(must=must)
            return
        if Effect.REFUSED in await self._session.queue.submit(items):
            self._completeness.refused(skill_id)
        else:
            self._completeness.fetched(skill_id)

    async def _items(self, skill_id: str, *, must: bool) -> list[Item]:
        """Return what the marketplace's answer means for the mirror. Raise `UpstreamError` if there is none."""
        begun = [0]

        def note() -> None:
            begun[0] = self._session.arrivals.next()

        try:
            record = await self._market.skill(skill_id, begun=note)
        except MalformedResponseError as error:
            if error.refusal is None:
                raise
            # The marketplace has it and it cannot be read: known now, and no reason to read everything.
            return [RefusedInput.of(error.refusal, error.body, DeadLetter.Source.FETCH)]
        if record is not None:
            return [Arrived(record, begun[0], FeedChange.Source.LISTING, polled=True)]
        return [Arrived(SkillAbsent(skill_id), begun[0], FeedChange.Source.LISTING, polled=True)] if must else []

    def _failed(self, *, must: bool) -> None:
        if must:
            self._mailbox.loss()
