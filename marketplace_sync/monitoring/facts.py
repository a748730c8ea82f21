"""What the database says of the mirror now, for metrics and health alike: some dozen small queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Sum

from marketplace_sync.mirror.clock import database_now, not_ahead, within
from marketplace_sync.mirror.metrics import FEED_SERVER_SECONDS
from marketplace_sync.mirror.status import Status, status
from marketplace_sync.models import Command, DaemonMetrics, DeadLetter, FeedServer, LeaseRow, SyncRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """How things stand at `now`, the database's time.

    `daemon_text` are the living daemon's own metrics, "" where none lives or it has not said anything yet;
    `daemon_written_at` is when it did. `open_commands` counts by action and state. `first_pass_at` is when the oldest
    pass that is remembered began.
    """

    now: datetime
    status: Status
    epoch: int
    feed_seq: int
    first_pass_at: datetime | None
    clean_pass_at: datetime | None
    last_pass_failed: bool
    held_runs: int
    held_removals: int
    open_letters: int
    letters_last_hour: int
    open_commands: Mapping[tuple[str, str], int]
    feed_servers: int
    feed_clients: int
    feed_lag: int
    daemon_text: str
    daemon_written_at: datetime | None


def read_facts() -> Facts:
    """Raises what the database raises."""
    stand = status()
    now = database_now()
    lease = LeaseRow.objects.filter(pk=1).first() or LeaseRow()
    daemon = DaemonMetrics.objects.filter(pk=1, epoch=lease.epoch).first() if stand.alive else None
    runs = SyncRun.objects.order_by("-id")
    last = runs.exclude(state=SyncRun.State.RUNNING).first()
    begun = SyncRun.objects.filter(not_ahead("started_at", now)).order_by("id")
    clean = runs.filter(not_ahead("finished_at", now), is_clean=True)
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
        first_pass_at=begun.values_list("started_at", flat=True).first(),
        clean_pass_at=clean.values_list("finished_at", flat=True).first(),
        last_pass_failed=last is not None and last.state == SyncRun.State.FAILED,
        held_runs=held["runs"],
        held_removals=held["removals"] or 0,
        open_letters=letters.filter(state=DeadLetter.State.OPEN).count(),
        letters_last_hour=letters.filter(within("last_seen_at", now, 3600)).count(),
        open_commands={
            (action, state): count
            for action, state, count in commands.values_list("action", "state").annotate(Count("id"))
        },
        feed_servers=serving["processes"],
        feed_clients=serving["clients"] or 0,
        feed_lag=serving["lag"] or 0,
        daemon_text=daemon.text if daemon is not None else "",
        daemon_written_at=daemon.written_at if daemon is not None else None,
    )
