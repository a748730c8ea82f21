"""The true status of the daemon and its stream, also after a crash (law 9)."""

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

# A daemon with an older heartbeat is not running, whatever state it wrote last.
DEAD_AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Sign:
    """The judgement of a heartbeat. `at`: the time of the last sign of life; `None` if no time is believable."""

    alive: bool
    at: datetime | None


class Observer:
    """Judge the daemon's heartbeat. All threads of this process share one memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watch = Watch(limit=DEAD_AFTER_SECONDS, patience=DEAD_AFTER_SECONDS)

    def look(self, holder: str, epoch: int, renewed_at: datetime | None, *, database_now: datetime, now: float) -> Sign:
        """Judge whether the holder of the lease is alive. `now`: this process's monotonic clock, in seconds."""
        if not holder:
            return Sign(alive=False, at=None)
        with self._lock:
            life = self._watch.look(Heartbeat(epoch, renewed_at), database_now=database_now, now=now)
            believed = self._watch.believed
        return Sign(alive=life is Life.ALIVE, at=believable(renewed_at, database_now) if believed else None)


observer = Observer()


@dataclass(frozen=True, slots=True)
class Status:
    """The status now. `row` is corrected: not connected, and `not_running`, when no daemon is alive."""

    row: WebSocketState
    alive: bool
    daemon: str  # host:pid, "" when the lease is free
    heartbeat_at: datetime | None  # the last sign of life; `None` if no time is believable
    standby: int
    ahead_seconds: float = 0.0  # of the heartbeat ahead of the database's clock, which was set back


def status() -> Status:
    """Read the state row, and correct it by the daemon's heartbeat."""
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
    """The freshness of the mirror.

    `as_of`: the mirror has everything that the marketplace had by then; `None` if that was never proved. While `live`
    it is the daemon's last heartbeat, since all messages until then are applied. Otherwise it is the later of two
    times: when the state was last `live`, and when the last clean full sync began (a page that was read early does not
    show later changes). A sync run that refused records does not count, and `live` does not count while `complete` is
    false: changes are missing then. A time ahead of the database's clock proves nothing and is ignored.
    """

    state: str
    as_of: datetime | None
    feed_seq: int  # the newest feed number


def freshness() -> Freshness:
    """Return the freshness, in one query: every answer of the catalogue API carries it."""
    state = WebSocketState.objects.filter(pk=OuterRef("pk"))
    clean_runs = SyncRun.objects.filter(is_clean=True, refused=0, started_at__lte=Now()).order_by("-id")
    row = (
        LeaseRow.objects.filter(pk=1)
        .values_list("holder", "epoch", "renewed_at", "feed_seq")
        .annotate(
            now=Now(),
            state=Subquery(state.values("state")),
            in_sync_at=Subquery(state.values("in_sync_at")),
            complete=Subquery(state.values("complete")),
            listed_at=Subquery(clean_runs.values("started_at")[:1]),
        )
        .first()
    )
    if row is None:
        return Freshness(WebSocketState.State.NOT_RUNNING, None, 0)
    holder, epoch, renewed_at, feed_seq, now, stored_state, in_sync_at, complete, listed_at = row
    sign = observer.look(holder, epoch, renewed_at, database_now=now, now=time.monotonic())
    in_sync_at = believable(in_sync_at, now)
    # The last heartbeat counts, also that of a daemon that has died since.
    if stored_state == WebSocketState.State.LIVE and complete and sign.at is not None:
        in_sync_at = sign.at
    known = [at for at in (in_sync_at, believable(listed_at, now)) if at is not None]
    state_now = stored_state if sign.alive and stored_state is not None else WebSocketState.State.NOT_RUNNING
    return Freshness(str(state_now), max(known, default=None), feed_seq)
