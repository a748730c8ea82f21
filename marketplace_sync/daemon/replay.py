"""Replays a dead letter: once more through the same door, and where that is shut, by fetching its skill.

What is told again is old by now, so it arrives before all else: it wins by its own time only, never on a tie (law
2). A fetched skill is as new as its request.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime

from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import requested
from marketplace_sync.daemon.write_queue import WriteQueue, WriterClosedError
from marketplace_sync.mirror.arrived import LISTED_CATEGORY, Arrived, Effect, Event, Item, RefusedInput, SkillAbsent
from marketplace_sync.mirror.dead_letters import find_dead_letter, mark_replayed
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Ping, Pong
from marketplace_sync.protocol.listing import decode_category_page, decode_skill
from marketplace_sync.protocol.message_types import Subject, subject_of
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError
from marketplace_sync.upstream.errors import MalformedResponseError, UpstreamError
from marketplace_sync.upstream.market import MarketClient

# Before all that was ever received.
_BEFORE_ALL = 0


class ReplayError(Exception):
    """The dead letter stays as it is; the text says why."""


class Replayer:
    """Replays one dead letter at a time for whoever asked; several may be under way."""

    def __init__(
        self,
        market: MarketClient,
        queue: WriteQueue,
        database: Database,
        lease: Lease,
        arrivals: Arrivals,
        *,
        max_message_bytes: int,
        wall: Callable[[], datetime],
    ) -> None:
        self._market = market
        self._queue = queue
        self._database = database
        self._lease = lease
        self._arrivals = arrivals
        self._max_message_bytes = max_message_bytes
        self._wall = wall

    async def replay(self, dead_letter_id: int) -> dict[str, object]:
        """Settle what the letter told; `{"detail", "effect"}`, where `effect` is a value of `Effect`.

        Raises `ReplayError` with the letter left open.
        """
        letter = await self._database.control(find_dead_letter, dead_letter_id)
        if letter is None:
            raise ReplayError(f"Dead letter {dead_letter_id} is no longer kept.")
        if letter.state != DeadLetter.State.OPEN:
            raise ReplayError(f"Dead letter {dead_letter_id} is {letter.state} already.")
        try:
            effect, detail = await self._settle(letter)
        except WriterClosedError:
            raise ReplayError("The daemon is stopping.") from None
        await self._database.control(mark_replayed, self._lease, dead_letter_id)
        return {"detail": detail, "effect": str(effect)}

    async def _settle(self, letter: DeadLetter) -> tuple[Effect, str]:
        head = bytes(letter.head)
        if hashlib.sha256(head).hexdigest() != letter.digest:
            return await self._fetch(letter, "only its beginning is kept")
        try:
            event = self._decode(letter, head)
        except DecodeError as refused:
            return await self._fetch(letter, f"it is refused again: {refused.refusal}")
        effect = await self._apply(event, _BEFORE_ALL, polled=letter.source != DeadLetter.Source.STREAM)
        if effect is Effect.FETCH:
            return await self._fetch(letter, "it does not say enough")
        return effect, f"Read again and applied: {effect}."

    def _decode(self, letter: DeadLetter, head: bytes) -> Event:
        """What the bytes tell, read as they were read first. Raises `DecodeError`."""
        now = self._wall()
        if letter.source == DeadLetter.Source.STREAM:
            # A text frame as the stream reads it, or a binary one.
            frame = head if letter.code == Code.BINARY else head.decode("utf-8", "surrogateescape")
            event = decode_message(frame, server_now=now, max_bytes=self._max_message_bytes)
            if isinstance(event, Ping | Pong):
                raise ReplayError("It is a heartbeat, which tells nothing.")
            return event
        if letter.source == DeadLetter.Source.LISTING and letter.kind == LISTED_CATEGORY:
            page = decode_category_page(b"[" + head + b"]", server_now=now)
            if page.refused:
                raise DecodeError(page.refused[0].refusal)
            return page.categories[0]
        return decode_skill(head, server_now=now)

    async def _fetch(self, letter: DeadLetter, why: str) -> tuple[Effect, str]:
        """Ask the marketplace for the letter's skill instead; `why` it has to be."""
        if letter.kind == LISTED_CATEGORY or subject_of(letter.kind) is Subject.CATEGORY:
            raise ReplayError(f"{_sentence(why)} The next pass reads all categories.")
        if not letter.key:
            raise ReplayError(f"{_sentence(why)} It names no skill that could be fetched; the next pass reads all.")
        try:
            arrival, record = await requested(
                self._arrivals.next, lambda begun: self._market.skill(letter.key, begun=begun)
            )
        except MalformedResponseError as fault:
            if fault.refusal is not None:
                await self._queue.submit([RefusedInput.of(fault.refusal, fault.body, DeadLetter.Source.FETCH)])
            raise ReplayError(f"{_sentence(why)} The skill as fetched can't be read either: {fault.reason}.") from None
        except UpstreamError as fault:
            raise ReplayError(f"{_sentence(why)} The skill could not be fetched: {fault.reason}.") from None
        effect = await self._apply(record or SkillAbsent(letter.key), arrival, polled=True)
        found = "fetched" if record else "not there any more"
        return effect, f"{_sentence(why)} So its skill was asked for: {found}, {effect}."

    async def _apply(self, event: Event, arrival: int, *, polled: bool) -> Effect:
        item: Item = Arrived(event, arrival, FeedChange.Source.REPAIR, polled=polled)
        (effect,) = await self._queue.submit([item])
        if effect is Effect.REFUSED:
            raise ReplayError("The database refuses it. The newest dead letter of that skill says why.")
        return effect


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
