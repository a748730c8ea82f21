"""Judge whether the writer of a heartbeat lives, by watching the heartbeat change.

A heartbeat is a row that its writer dates again every few seconds, by the database's clock. A stored time alone proves
nothing: the clock may have been put back or forward since, a virtual machine resumed, a backup restored. So:

 1. The database's clock judges each heartbeat once, when the observer first sees it. Up to `limit` seconds old: a sign
    of life. Older: none.
 2. A time more than `AHEAD_SECONDS` ahead of that clock, or no time at all, is no sign of life. It is no proof of
    death either: a living writer whose clock was put back dates its heartbeat again within one period.
 3. From then on only the observer's own monotonic clock counts. A sign of life lasts until the heartbeat would be
    `limit` old. A heartbeat without a believable time that stays the same for `patience` seconds is a dead writer's.
 4. A heartbeat that has changed is judged again, by rule 1.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

# Two hosts, or two statements of one, may differ by this much.
AHEAD_SECONDS = 2.0


def believable(at: datetime | None, now: datetime) -> datetime | None:
    """Return a stored time, at most `now`; `None` for one that is more than `AHEAD_SECONDS` ahead of `now`."""
    if at is None or at - now > timedelta(seconds=AHEAD_SECONDS):
        return None
    return min(at, now)


class Life(Enum):
    """The judgement on a heartbeat's writer after one look."""

    ALIVE = auto()
    UNCERTAIN = auto()  # no sign of life, and not watched for long enough to call it dead
    DEAD = auto()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The identity of one heartbeat: the writer's epoch, and the time that it wrote."""

    epoch: int
    at: datetime | None


class Watch:
    """Remember the heartbeat that was seen last. Not safe for threads: the owner of a shared one locks."""

    def __init__(self, *, limit: float, patience: float) -> None:
        """`limit`, `patience`: seconds; see the rules."""
        self._limit = limit
        self._patience = patience
        self._seen: Heartbeat | None = None
        self._seen_at = 0.0
        self._age: float | None = None  # when it was first seen; `None`: its time is not believable

    def look(self, heartbeat: Heartbeat, *, database_now: datetime, now: float) -> Life:
        """Judge the writer. `now`: the observer's monotonic clock, seconds."""
        if heartbeat != self._seen:
            self._seen, self._seen_at = heartbeat, now
            at = believable(heartbeat.at, database_now)
            self._age = None if at is None else (database_now - at).total_seconds()
        unchanged = now - self._seen_at
        if self._age is None:
            return Life.DEAD if unchanged >= self._patience else Life.UNCERTAIN
        return Life.ALIVE if self._age + unchanged < self._limit else Life.DEAD

    @property
    def believed(self) -> bool:
        """Return whether the heartbeat that was seen last had a believable time when it was first seen."""
        return self._age is not None
