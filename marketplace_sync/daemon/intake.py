"""Take each stream message from the socket: limit the rate, refuse, shed or queue it (law 6)."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Protocol, assert_never

from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.write_queue import WriteQueue
from marketplace_sync.daemon.writer import Committed
from marketplace_sync.engine.rates import TokenBucket
from marketplace_sync.mirror.arrived import Arrived, Effect, Event, RefusedInput
from marketplace_sync.models import DeadLetter, FeedChange
from marketplace_sync.protocol.events import Change
from marketplace_sync.protocol.message_types import Announces, Repair, Subject, repair_of, subject_of, type_of
from marketplace_sync.protocol.refusals import Refusal

# Ids of removals that were shed. A full sync that finds these skills absent need not wait for approval.
MAX_ANNOUNCED = 100_000

TOTAL_OF = {
    Effect.CREATED: "applied",
    Effect.UPDATED: "applied",
    Effect.REMOVED: "applied",
    Effect.FETCH: "applied",  # its content comes with the fetch
    Effect.UNCHANGED: "unchanged",
    Effect.STALE: "stale",
    Effect.REFUSED: "rejected",
}


class Repairs(Protocol):
    """Brings back what was not applied, by a single fetch or by a full sync."""

    def fetch(self, skill_id: str) -> None:
        """Fetch that skill. A 404 proves that it is absent."""

    def complete(self, skill_id: str) -> None:
        """Fetch that skill, of which only a part is stored."""

    def loss(self) -> None:
        """Mark a gap: something was not applied, and what it was about is unknown."""


class Announced:
    """The skills whose removals the stream announced in messages that were shed; the newest `MAX_ANNOUNCED`."""

    def __init__(self) -> None:
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    def __contains__(self, skill_id: object) -> bool:
        return skill_id in self._arrivals

    def __len__(self) -> int:
        return len(self._arrivals)

    def add(self, skill_id: str, arrival: int) -> None:
        """Note the removal of a skill, and forget the oldest one where there are too many."""
        self._arrivals[skill_id] = arrival
        self._arrivals.move_to_end(skill_id)
        if len(self._arrivals) > MAX_ANNOUNCED:
            self._arrivals.popitem(last=False)

    def discard(self, skill_id: str) -> None:
        """Forget the removal of a skill that the stream reported since."""
        self._arrivals.pop(skill_id, None)

    def forget_until(self, arrival: int) -> None:
        """Forget what was announced up to `arrival`, where a clean full sync began: it has settled that."""
        for skill_id in [key for key, announced in self._arrivals.items() if announced <= arrival]:
            del self._arrivals[skill_id]


class Intake(DaemonObserver):
    """Refuse, shed or queue each stream message, and count what becomes of it.

    `totals` counts them by outcome, `moves` the skills that they reported as created or removed.

    `lost` is called with each message that reaches no batch, and with the total that it counts in.
    """

    def __init__(
        self,
        *,
        bucket: TokenBucket,
        arrivals: Arrivals,
        repairs: Repairs,
        totals: Counter[str],
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        lost: Callable[[Change | Refusal, str], None] = lambda *_: None,
    ) -> None:
        self._bucket = bucket
        self._lost = lost
        self._arrivals = arrivals
        self._repairs = repairs
        self._clock = clock
        self._wall = wall
        self.totals = totals
        self.announced = Announced()
        self.moves = 0
        self.last_message_at: datetime | None = None

    def receive(self, event: Change | Refusal, raw: bytes, queue: WriteQueue) -> None:
        """Count one message that is no heartbeat, and queue it or shed it. Quick: it runs in the read loop."""
        self.totals["received"] += 1
        self.last_message_at = self._wall()
        arrival = self._arrivals.next()
        if not self._bucket.take(self._clock()):
            self._shed(event, arrival)
        elif isinstance(event, Refusal):
            self._refuse(event, raw, queue)
        elif queue.offer(Arrived(event, arrival, FeedChange.Source.STREAM, size=len(raw))):
            message_type = type_of(event)
            if message_type.announces is Announces.PRESENT:
                self.announced.discard(message_type.key_of(event))
        else:
            self._shed(event, arrival)

    def committed(self, batch: Committed) -> None:
        """Count a committed batch, and request the fetches that it needs."""
        counts = Counter(batch.effects)
        for effect, count in counts.items():
            self.totals[TOTAL_OF[effect]] += count
        self.moves += sum(effect in (Effect.CREATED, Effect.REMOVED) for effect in batch.effects)
        for skill_id in batch.result.fetch:
            self._repairs.fetch(skill_id)
        for skill_id in batch.result.incomplete:
            self._repairs.complete(skill_id)
        if counts[Effect.REFUSED]:
            for item, effect in zip(batch.items, batch.effects, strict=True):
                if effect is Effect.REFUSED and isinstance(item, Arrived):
                    self._repair_unstorable(item.event)

    def _repair_unstorable(self, event: Event) -> None:
        """Repair what the database refused. A fetched record may be better; one that is refused again marks no gap."""
        if isinstance(event, Change):
            message_type = type_of(event)
            self._repair(message_type.subject, message_type.key_of(event))

    def _repair(self, subject: Subject, key: str | None) -> None:
        match repair := repair_of(subject, key):
            case Repair.FETCH:
                assert key is not None
                self._repairs.fetch(key)
            case Repair.FULL_SYNC:
                self._repairs.loss()
            case _:
                assert_never(repair)

    def _refuse(self, refusal: Refusal, raw: bytes, queue: WriteQueue) -> None:
        if not queue.offer(RefusedInput.of(refusal, raw, DeadLetter.Source.STREAM)):
            self.totals["rejected"] += 1
            self._lost(refusal, "rejected")
            self._repairs.loss()
        else:
            self._repair(subject_of(refusal.kind), refusal.key)

    def _shed(self, event: Change | Refusal, arrival: int) -> None:
        self.totals["shed"] += 1
        self._lost(event, "shed")
        if not isinstance(event, Refusal):
            self._announce(event, arrival)
        self._repairs.loss()

    def _announce(self, event: Change, arrival: int) -> None:
        """Keep what a shed message reports about the existence of its skill."""
        message_type = type_of(event)
        match message_type.announces:
            case Announces.REMOVED:
                self.announced.add(message_type.key_of(event), arrival)
                self.moves += 1
            case Announces.PRESENT:
                self.announced.discard(message_type.key_of(event))
                self.moves += 1
            case None:
                return
            case _:
                assert_never(message_type.announces)
