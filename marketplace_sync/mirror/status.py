"""The truth about the daemon and its stream, also after a crash (law 9)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery
from django.db.models.functions import Now

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import STANDBY_SECONDS
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import LeaseRow, Standby, SyncRun, WebSocketState

# A daemon whose heartbeat is older is not running, whatever it wrote last.
DEAD_AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand now. `row` is corrected already: not connected when no daemon is alive."""

    row: WebSocketState
    alive: bool
    daemon: str  # host:pid, "" when none holds the lease
    heartbeat_at: datetime | None
    standby: int


def status() -> Status:
    """Read the state row against the daemon's heartbeat, by the database's clock."""
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    row = state_row()
    now = database_now()
    alive = _alive(lease.holder, lease.renewed_at, now)
    if not alive:
        row.connected = False
        row.state = WebSocketState.State.NOT_RUNNING
    waiting = Standby.objects.filter(seen_at__gte=now - timedelta(seconds=STANDBY_SECONDS)).count()
    return Status(row, alive, lease.holder, lease.renewed_at, waiting)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far what the mirror holds can be relied on.

    `as_of`: whatever the marketplace had by then, the mirror has; `None` where nothing was ever proved. While `live`
    that is the daemon's last heartbeat: what the stream told by then is applied. Otherwise the later of two: when the
    daemon last said `live`, and when the last clean pass began, for a page that was read early says nothing of what
    changed after it.
    """

    state: str
    as_of: datetime | None
    feed_seq: int  # the last feed number that had been given


def freshness() -> Freshness:
    """The truth of `status`, in one query: it goes with every answer of the catalogue API."""
    state = WebSocketState.objects.filter(pk=OuterRef("pk"))
    passes = SyncRun.objects.filter(is_clean=True).order_by("-id")
    row = (
        LeaseRow.objects.filter(pk=1)
        .values_list("holder", "renewed_at", "feed_seq")
        .annotate(
            now=Now(),
            state=Subquery(state.values("state")),
            level_at=Subquery(state.values("level_at")),
            listed_at=Subquery(passes.values("started_at")[:1]),
        )
        .first()
    )
    if row is None:
        return Freshness(WebSocketState.State.NOT_RUNNING, None, 0)
    holder, renewed_at, feed_seq, now, told, level_at, listed_at = row
    alive = _alive(holder, renewed_at, now)
    # What a daemon that died meant when it said so last counts as well.
    if told == WebSocketState.State.LIVE and holder and renewed_at is not None:
        level_at = renewed_at
    known = [at for at in (level_at, listed_at) if at is not None]
    state_now = told if alive and told is not None else WebSocketState.State.NOT_RUNNING
    return Freshness(str(state_now), max(known, default=None), feed_seq)


def _alive(holder: str, renewed_at: datetime | None, now: datetime) -> bool:
    """Whether the daemon that holds the lease has been heard of lately."""
    return bool(holder and renewed_at is not None and (now - renewed_at).total_seconds() <= DEAD_AFTER_SECONDS)
