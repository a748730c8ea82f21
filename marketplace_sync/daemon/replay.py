"""Replay a dead letter: decode and apply it again, or, where that is not possible, fetch its skill.

Its content is old by now, so it gets the arrival 0: it wins by its own time only, never on a tie (law 2). A fetched
skill gets the arrival of its request.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime

from marketplace_sync.daemon.reading import requested
from marketplace_sync.daemon.session import Session
from marketplace_sync.daemon.write_queue import WriterClosedError
from marketplace_sync.mirror.arrived import LISTED_CATEGORY, Arrived, Effect, Event, Item, RefusedInput, SkillAbsent
from marketplace_sync.mirror.dead_letters import find_dead_letter, mark_replayed
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Ping, Pong
from marketplace_sync.protocol.listing import decode_category_page, decode_skill
from marketplace_sync.protocol.message_types import Subject, subject_of
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.upstream.errors import MalformedResponseError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

# An arrival before all others.
_BEFORE_ALL = 0


class ReplayError(Exception):
    """The dead letter could not be replayed and stays open; the text is the reason."""


class Replayer:
    """Replay dead letters; several may be under way."""

    def __init__(
        self, market: MarketClient, session: Session, *, max_message_bytes: int, wall: Callable[[], datetime]
    ) -> None:
        self._market = market
        self._session = session
        self._max_message_bytes = max_message_bytes
        self._wall = wall

    async def replay(self, dead_letter_id: int) -> dict[str, object]:
        """Apply what the dead letter reports. Return `{"detail", "effect"}`, where `effect` is a value of `Effect`.

        Raise `ReplayError` if the dead letter stays open.
        """
        database = self._session.database
        dead_letter = await database.control(find_dead_letter, dead_letter_id)
        if dead_letter is None:
            raise ReplayError(f"Dead letter {dead_letter_id} is no longer kept.")
        if dead_letter.state != DeadLetter.State.OPEN:
            raise ReplayError(f"Dead letter {dead_letter_id} is {dead_letter.state} already.")
        try:
            effect, detail = await self._settle(dead_letter)
        except WriterClosedError:
            raise ReplayError("The daemon is stopping.") from None
        await database.control(mark_replayed, self._session.lease, dead_letter_id)
        return {"detail": detail, "effect": str(effect)}

    async def _settle(self, dead_letter: DeadLetter) -> tuple[Effect, str]:
        head = bytes(dead_letter.head)
        if hashlib.sha256(head).hexdigest() != dead_letter.digest:
            return await self._fetch(dead_letter, "only its beginning is kept")
        try:
            event = self._decode(dead_letter, head)
        except DecodeError as error:
            return await self._fetch(dead_letter, f"it is refused again: {error.refusal}")
        effect = await self._apply(event, _BEFORE_ALL, polled=dead_letter.source != DeadLetter.Source.STREAM)
        if effect is Effect.FETCH:
            return await self._fetch(dead_letter, "it does not report enough")
        return effect, f"Read again and applied: {effect}."

    def _decode(self, dead_letter: DeadLetter, head: bytes) -> Event:
        """Return what the bytes report, decoded as when they came. Raise `DecodeError` if they are refused again."""
        now = self._wall()
        if dead_letter.source == DeadLetter.Source.STREAM:
            # A text frame as the stream reads it, or a binary one.
            frame = head if dead_letter.code == Code.BINARY else head.decode("utf-8", "surrogateescape")
            event = decode_message(frame, server_now=now, max_bytes=self._max_message_bytes)
            if isinstance(event, Ping | Pong):
                raise ReplayError("It is a heartbeat: there is nothing to apply.")
            return event
        if dead_letter.source == DeadLetter.Source.LISTING and dead_letter.kind == LISTED_CATEGORY:
            page = decode_category_page(b"[" + head + b"]", server_now=now)
            if page.refused:
                raise DecodeError(page.refused[0].refusal)
            return page.categories[0]
        return decode_skill(head, server_now=now)

    async def _fetch(self, dead_letter: DeadLetter, why: str) -> tuple[Effect, str]:
        """Fetch the dead letter's skill instead; `why` it has to be."""
        if dead_letter.kind == LISTED_CATEGORY or subject_of(dead_letter.kind) is Subject.CATEGORY:
            raise ReplayError(f"{_sentence(why)} The next full sync reads all categories.")
        if not dead_letter.key:
            raise ReplayError(f"{_sentence(why)} It names no skill to fetch; the next full sync reads all skills.")
        try:
            arrival, record = await requested(
                self._session.arrivals.next, lambda begun: self._market.skill(dead_letter.key, begun=begun)
            )
        except MalformedResponseError as error:
            if error.refusal is not None:
                await self._session.queue.submit([RefusedInput.of(error.refusal, error.body, DeadLetter.Source.FETCH)])
            raise ReplayError(f"{_sentence(why)} The skill as fetched can't be read either: {error.reason}.") from None
        except UpstreamError as error:
            raise ReplayError(f"{_sentence(why)} The skill could not be fetched: {error.reason}.") from None
        effect = await self._apply(record or SkillAbsent(dead_letter.key), arrival, polled=True)
        found = "fetched" if record else "no longer there"
        return effect, f"{_sentence(why)} So its skill was requested: {found}, {effect}."

    async def _apply(self, event: Event, arrival: int, *, polled: bool) -> Effect:
        item: Item = Arrived(event, arrival, FeedChange.Source.REPAIR, polled=polled)
        (effect,) = await self._session.queue.submit([item])
        if effect is Effect.REFUSED:
            raise ReplayError("The database refuses it. See the newest dead letter of that skill.")
        return effect


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
