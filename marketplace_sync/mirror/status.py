"""The truth about the daemon and its stream, also after a crash (law 9)."""

from dataclasses import dataclass
from datetime import timedelta

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import STANDBY_SECONDS
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import LeaseRow, Standby, WebSocketState

# A daemon whose heartbeat is older is not running, whatever it wrote last.
DEAD_AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand now. `row` is corrected already: not connected when no daemon is alive."""

    row: WebSocketState
    alive: bool
    daemon: str  # host:pid, "" when none holds the lease
    heartbeat_at: object
    standby: int


def status() -> Status:
    """Read the state row against the daemon's heartbeat, by the database's clock."""
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    row = state_row()
    now = database_now()
    alive = bool(
        lease.holder and lease.renewed_at is not None and (now - lease.renewed_at).total_seconds() <= DEAD_AFTER_SECONDS
    )
    if not alive:
        row.connected = False
        row.state = WebSocketState.State.NOT_RUNNING
    waiting = Standby.objects.filter(seen_at__gte=now - timedelta(seconds=STANDBY_SECONDS)).count()
    return Status(row, alive, lease.holder, lease.renewed_at, waiting)
