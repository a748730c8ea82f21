"""What the database says of the mirror now, for metrics and health alike: some dozen small queries."""

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
    """How things stand at `now`, the database's time.

    `daemon_text` are the living daemon's own metrics, "" where none lives or it has not said anything yet;
    `daemon_written_at` is when it did. `open_commands` counts by action and state. `first_sync_at` is when the oldest
    full sync that is remembered began, `clean_sync_at` when the last clean one ended. `clean_sync_ahead`: a later clean
    one is dated ahead of the clock. `failures`: the full syncs that failed since one could last read the marketplace,
    `failing_since` is when the first of them began, `failure` what the last one said. `write_trouble` is looked for
    where the heartbeat is late. `refused_records`: what the last sync that read anything could not read;
    `refused_share`: the part of it, 0.0 to 1.0.
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
    """Raises what the database raises."""
    stand = status()
    now = database_now()
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    daemon = DaemonMetrics.objects.filter(pk=1, epoch=lease.epoch).first() if stand.alive else None
    runs = SyncRun.objects.order_by("-id")
    last = runs.exclude(state__in=_SAY_NOTHING).first()
    failed = _failed_since_one_could_read() if last is not None and last.state == SyncRun.State.FAILED else None
    begun = SyncRun.objects.filter(not_ahead("started_at", now)).order_by("id")
    clean = runs.filter(is_clean=True)
    believed = clean.filter(not_ahead("finished_at", now)).values_list("pk", "finished_at").first()
    newest_clean = clean.values_list("pk", flat=True).first()
    read = runs.exclude(state__in=_SAY_NOTHING).filter(Q(listed__gt=0) | Q(refused__gt=0))
    last_read = read.first() or SyncRun()
    held = SyncRun.objects.filter(state=SyncRun.State.HELD).aggregate(runs=Count("id"), removals=Sum("held_count"))
    letters = DeadLetter.objects.order_by()
    commands = Command.objects.filter(state__in=(Command.State.PENDING, Command.State.ACCEPTED)).order_by()
    serving = FeedServer.objects.filter(within("seen_at", now, FEED_SERVER_SECONDS)).aggregate(
        processes=Count("name"), clients=Sum("clients"), lag=Max("lag")
    )
    return Facts(
        now=now,
        status=stand,
        epoch=lease.epoch,
        feed_seq=lease.feed_seq,
        first_sync_at=begun.values_list("started_at", flat=True).first(),
        clean_sync_at=believed[1] if believed is not None else None,
        clean_sync_ahead=newest_clean is not None and (believed is None or believed[0] != newest_clean),
        failures=failed["count"] if failed is not None else 0,
        failing_since=failed["since"] if failed is not None else None,
        failure=last.error if failed is not None and last is not None else "",
        refused_records=last_read.refused,
        refused_share=last_read.refused_share,
        held_runs=held["runs"],
        held_removals=held["removals"] or 0,
        open_dead_letters=letters.filter(state=DeadLetter.State.OPEN).count(),
        dead_letters_last_hour=letters.filter(within("last_seen_at", now, 3600)).count(),
        open_commands={
            (action, state): count
            for action, state, count in commands.values_list("action", "state").annotate(Count("id"))
        },
        feed_servers=serving["processes"],
        feed_clients=serving["clients"] or 0,
        feed_lag=serving["lag"] or 0,
        daemon_text=daemon.text if daemon is not None else "",
        daemon_written_at=daemon.written_at if daemon is not None else None,
        write_trouble=write_trouble() if _is_late(stand, now) else None,
    )


# Runs that tell nothing of whether the marketplace can be read.
_SAY_NOTHING = (SyncRun.State.RUNNING, SyncRun.State.INTERRUPTED)


def _failed_since_one_could_read() -> dict[str, Any]:
    """Count the runs that failed since the last one that could read; and when the first of them began."""
    read = SyncRun.objects.exclude(state__in=(*_SAY_NOTHING, SyncRun.State.FAILED)).order_by("-id")
    failed = SyncRun.objects.filter(state=SyncRun.State.FAILED, pk__gt=read.values_list("pk", flat=True).first() or 0)
    return failed.aggregate(count=Count("id"), since=Min("started_at"))


def _is_late(stand: Status, now: datetime) -> bool:
    """Return whether the daemon has missed two renewals; none is looked for while all is well."""
    return not stand.alive or stand.heartbeat_at is None or (now - stand.heartbeat_at).total_seconds() > WATCH_SECONDS
