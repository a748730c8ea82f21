"""The truth about the daemon and its stream, also after a crash (law 9)."""

import threading
import time
from dataclasses import dataclass
from datetime import datetime

from django.db.models import OuterRef, Subquery
from django.db.models.functions import Now

from marketplace_sync.engine.liveness import Heartbeat, Life, Watch, believable
from marketplace_sync.mirror.clock import database_now, within
from marketplace_sync.mirror.lease import STANDBY_SECONDS
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import LeaseRow, Standby, SyncRun, WebSocketState

# A daemon whose heartbeat is older is not running, whatever it wrote last.
DEAD_AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sign:
    """`alive`: the daemon shows a sign of life. `at`: when it did last; `None` where no time of it can be believed."""

    alive: bool
    at: datetime | None


class Observer:
    """Judge the daemon's heartbeat, with one memory for all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch = Watch(limit=DEAD_AFTER_SECONDS, patience=DEAD_AFTER_SECONDS)

    def look(self, holder: str, epoch: int, renewed_at: datetime | None, *, database_now: datetime, now: float) -> Sign:
        """Return what the lease row says of its holder. `now`: this process's monotonic clock."""
        if not holder:
            return Sign(alive=False, at=None)
        with self._lock:
            life = self._watch.look(Heartbeat(epoch, renewed_at), database_now=database_now, now=now)
            believed = self._watch.believed
        return Sign(alive=life is Life.ALIVE, at=believable(renewed_at, database_now) if believed else None)


observer = Observer()


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand now. `row` is corrected already: not connected when no daemon is alive."""

    row: WebSocketState
    alive: bool
    daemon: str  # host:pid, "" when none holds the lease
    heartbeat_at: datetime | None  # the last sign of life; `None` where no time of one can be believed
    standby: int
    ahead_seconds: float = 0.0  # by which the heartbeat is dated ahead of the database's clock, which was put back


def status() -> Status:
    """Read the state row against the daemon's heartbeat."""
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    row = state_row()
    now = database_now()
    sign = observer.look(lease.holder, lease.epoch, lease.renewed_at, database_now=now, now=time.monotonic())
    if not sign.alive:
        row.connected = False
        row.state = WebSocketState.State.NOT_RUNNING
    waiting = Standby.objects.filter(within("seen_at", now, STANDBY_SECONDS)).count()
    stored = lease.renewed_at if lease.holder else None
    ahead = (stored - now).total_seconds() if stored is not None and sign.at is None else 0.0
    return Status(row, sign.alive, lease.holder, sign.at, waiting, max(ahead, 0.0))


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far what the mirror holds can be relied on.

    `as_of`: whatever the marketplace had by then, the mirror has; `None` where nothing was ever proved. While `live`
    that is the daemon's last heartbeat: what the stream told by then is applied. Otherwise the later of two: when the
    daemon last said `live`, and when the last clean pass began, for a page that was read early says nothing of what
    changed after it. A sync that refused records is none of these, and while `complete` is false `live` moves nothing:
    the mirror does not have what they say. A time that is ahead of the database's clock proves nothing, so it never is.
    """

    state: str
    as_of: datetime | None
    feed_seq: int  # the last feed number that had been given


def freshness() -> Freshness:
    """The truth of `status`, in one query: it goes with every answer of the catalogue API."""
    state = WebSocketState.objects.filter(pk=OuterRef("pk"))
    passes = SyncRun.objects.filter(is_clean=True, refused=0, started_at__lte=Now()).order_by("-id")
    row = (
        LeaseRow.objects.filter(pk=1)
        .values_list("holder", "epoch", "renewed_at", "feed_seq")
        .annotate(
            now=Now(),
            state=Subquery(state.values("state")),
            in_sync_at=Subquery(state.values("in_sync_at")),
            complete=Subquery(state.values("complete")),
            listed_at=Subquery(passes.values("started_at")[:1]),
        )
        .first()
    )
    if row is None:
        return Freshness(WebSocketState.State.NOT_RUNNING, None, 0)
    holder, epoch, renewed_at, feed_seq, now, told, in_sync_at, complete, listed_at = row
    sign = observer.look(holder, epoch, renewed_at, database_now=now, now=time.monotonic())
    in_sync_at = believable(in_sync_at, now)
    # What a daemon that died meant when it said so last counts as well.
    if told == WebSocketState.State.LIVE and complete and sign.at is not None:
        in_sync_at = sign.at
    known = [at for at in (in_sync_at, believable(listed_at, now)) if at is not None]
    state_now = told if sign.alive and told is not None else WebSocketState.State.NOT_RUNNING
    return Freshness(str(state_now), max(known, default=None), feed_seq)
