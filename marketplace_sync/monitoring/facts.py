"""The facts about the mirror for metrics and health: about a dozen small queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Min, Q, Sum

from marketplace_sync.mirror.clock import database_now, not_ahead, within
from marketplace_sync.mirror.lease import WATCH_SECONDS
from marketplace_sync.mirror.metrics import FEED_SERVER_SECONDS
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.mirror.write_probe import WriteTrouble, write_trouble
from marketplace_sync.models import Command, DaemonMetrics, DeadLetter, FeedServer, LeaseRow, SyncRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts at `now`, the database's time.

    - `first_sync_at`: start of the oldest recorded full sync; `clean_sync_at`: end of the last clean one.
    - `clean_sync_ahead`: a later clean full sync is dated ahead of the database's clock.
    - `failures`: full syncs that failed since one last read the marketplace; `failing_since`: start of the first of
      these; `failure`: the error of the last.
    - `refused_records`: refused rows of the last full sync that read any row; `refused_share`: their share, 0.0 to 1.0.
    - `open_commands`: counts by action and state.
    - `daemon_text`: the running daemon's own metrics, "" if none runs or it has not written any yet;
      `daemon_written_at`: when it wrote them.
    - `write_trouble`: why nothing can be written; only probed while the heartbeat is late.
    """

    now: datetime
    status: Status
    epoch: int
    feed_seq: int
    first_sync_at: datetime | None
    clean_sync_at: datetime | None
    clean_sync_ahead: bool
    failures: int
    failing_since: datetime | None
    failure: str
    refused_records: int
    refused_share: float
    held_runs: int
    held_removals: int
    open_dead_letters: int
    dead_letters_last_hour: int
    open_commands: Mapping[tuple[str, str], int]
    feed_servers: int
    feed_clients: int
    feed_lag: int
    daemon_text: str
    daemon_written_at: datetime | None
    write_trouble: WriteTrouble | None = None


def read_facts() -> Facts:
    """Read the facts. Raise what the database raises."""
    daemon_status = status()
    now = database_now()
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    daemon = DaemonMetrics.objects.filter(pk=1, epoch=lease.epoch).first() if daemon_status.alive else None
    runs = SyncRun.objects.order_by("-id")
    last = runs.exclude(state__in=_NOT_FINISHED).first()
    failed = _failed_since_last_read() if last is not None and last.state == SyncRun.State.FAILED else None
    started = SyncRun.objects.filter(not_ahead("started_at", now)).order_by("id")
    clean = runs.filter(is_clean=True)
    latest_clean = clean.filter(not_ahead("finished_at", now)).values_list("pk", "finished_at").first()
    newest_clean = clean.values_list("pk", flat=True).first()
    read = runs.exclude(state__in=_NOT_FINISHED).filter(Q(listed__gt=0) | Q(refused__gt=0))
    last_read = read.first() or SyncRun()
    on_hold = SyncRun.objects.filter(state=SyncRun.State.HELD).aggregate(runs=Count("id"), removals=Sum("held_count"))
    dead_letters = DeadLetter.objects.order_by()
    commands = Command.objects.filter(state__in=(Command.State.PENDING, Command.State.ACCEPTED)).order_by()
    feed_servers = FeedServer.objects.filter(within("seen_at", now, FEED_SERVER_SECONDS)).aggregate(
        processes=Count("name"), clients=Sum("clients"), lag=Max("lag")
    )
    return Facts(
        now=now,
        status=daemon_status,
        epoch=lease.epoch,
        feed_seq=lease.feed_seq,
        first_sync_at=started.values_list("started_at", flat=True).first(),
        clean_sync_at=latest_clean[1] if latest_clean is not None else None,
        clean_sync_ahead=newest_clean is not None and (latest_clean is None or latest_clean[0] != newest_clean),
        failures=failed["count"] if failed is not None else 0,
        failing_since=failed["since"] if failed is not None else None,
        failure=last.error if failed is not None and last is not None else "",
        refused_records=last_read.refused,
        refused_share=last_read.refused_share,
        held_runs=on_hold["runs"],
        held_removals=on_hold["removals"] or 0,
        open_dead_letters=dead_letters.filter(state=DeadLetter.State.OPEN).count(),
        dead_letters_last_hour=dead_letters.filter(within("last_seen_at", now, 3600)).count(),
        open_commands={
            (action, state): count
            for action, state, count in commands.values_list("action", "state").annotate(Count("id"))
        },
        feed_servers=feed_servers["processes"],
        feed_clients=feed_servers["clients"] or 0,
        feed_lag=feed_servers["lag"] or 0,
        daemon_text=daemon.text if daemon is not None else "",
        daemon_written_at=daemon.written_at if daemon is not None else None,
        write_trouble=write_trouble() if _is_late(daemon_status, now) else None,
    )


# Such runs do not show whether the marketplace can be read.
_NOT_FINISHED = (SyncRun.State.RUNNING, SyncRun.State.INTERRUPTED)


def _failed_since_last_read() -> dict[str, Any]:
    """Return how many runs failed since the last one that read the marketplace, and when the first of them began."""
    read = SyncRun.objects.exclude(state__in=(*_NOT_FINISHED, SyncRun.State.FAILED)).order_by("-id")
    failed = SyncRun.objects.filter(state=SyncRun.State.FAILED, pk__gt=read.values_list("pk", flat=True).first() or 0)
    return failed.aggregate(count=Count("id"), since=Min("started_at"))


def _is_late(daemon_status: Status, now: datetime) -> bool:
    """Return whether the daemon has missed two renewals of its lease."""
    if not daemon_status.alive or daemon_status.heartbeat_at is None:
        return True
    return (now - daemon_status.heartbeat_at).total_seconds() > WATCH_SECONDS
