"""Delete old rows, in small steps."""

from datetime import timedelta

from marketplace_sync.engine.liveness import Watch
from marketplace_sync.mirror.clock import not_ahead
from marketplace_sync.mirror.figures import KEPT_MINUTES
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.models import (
    Command,
    DeadLetter,
    FeedChange,
    HeldRemoval,
    MinuteFigures,
    SyncRun,
    Tombstone,
)

# Law 3: long enough for every delayed record, short enough that an undelete with an old date heals.
TOMBSTONES_KEPT = timedelta(days=7)
# Rows per step, so that no step locks the lease for long.
STEP = 1000


def forget_tombstones(lease: Lease) -> int:
    """Delete up to `STEP` tombstones that are old enough; return how many.

    A tombstone dated ahead of the clock, which was set back since, would stay for longer than 7 days: it is dated now.
    """
    with lease.writing() as head:
        Tombstone.objects.exclude(not_ahead("removed_at", head.now)).update(removed_at=head.now)
        old = Tombstone.objects.filter(removed_at__lt=head.now - TOMBSTONES_KEPT).order_by("removed_at")
        return Tombstone.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:STEP])).delete()[0]


def forget_changes(lease: Lease, *, keep_days: float, keep_rows: int) -> int:
    """Delete up to `STEP` of the oldest feed rows that are too old or too many; return how many."""
    with lease.writing() as head:
        first = FeedChange.objects.order_by("seq").values_list("seq", flat=True).first()
        if first is None:
            return 0
        end = min(first + STEP, head.feed_seq + 1)
        step = FeedChange.objects.filter(seq__lt=end)
        # Only from the front. A gap in the middle, where the clock was once set back, would be a loss that no
        # subscriber sees.
        kept = step.filter(seq__gt=head.feed_seq - keep_rows, at__gte=head.now - timedelta(days=keep_days))
        first_kept = kept.order_by("seq").values_list("seq", flat=True).first()
        return step.filter(seq__lt=end if first_kept is None else first_kept).delete()[0]


def forget_feed(holder: str, watch: Watch | None = None) -> int:
    """Delete all feed rows and continue with numbers that were never used; return the newest number.

    For a database restored from a backup: it does not know the numbers used since the backup, and would use them again
    for other changes. The milliseconds since 1970 are greater than any feed number, however often this is done.
    `watch`: see `acquire`. Raises `LeaseTakenError` while a daemon writes.
    """
    lease = acquire(holder, watch)
    with lease.writing() as head:
        FeedChange.objects.all().delete()
        head.feed_seq = max(head.feed_seq + 1, int(head.now.timestamp() * 1000))
        newest = head.feed_seq
    lease.release()
    return newest


def forget_runs(lease: Lease, *, keep_days: float) -> int:
    """Delete up to `STEP` rows of sync runs that ended long ago; return how many. A run with removals on hold stays."""
    with lease.writing() as head:
        old = SyncRun.objects.exclude(state__in=(SyncRun.State.RUNNING, SyncRun.State.HELD)).filter(
            finished_at__lt=head.now - timedelta(days=keep_days)
        )
        # A sync run with a whole catalogue on hold would be a step of 100,000 rows, so its removals are deleted first.
        removals = HeldRemoval.objects.filter(run__in=old).order_by("pk").values_list("pk", flat=True)[:STEP]
        if gone := HeldRemoval.objects.filter(pk__in=list(removals)).delete()[0]:
            return gone
        runs = old.order_by("pk").values_list("pk", flat=True)[:STEP]
        return SyncRun.objects.filter(pk__in=list(runs)).delete()[0]


def forget_commands(lease: Lease, *, keep_days: float) -> int:
    """Delete up to `STEP` commands that ended long ago; return how many."""
    with lease.writing() as head:
        old = Command.objects.exclude(state__in=(Command.State.PENDING, Command.State.ACCEPTED)).filter(
            finished_at__lt=head.now - timedelta(days=keep_days)
        )
        return Command.objects.filter(pk__in=list(old.order_by("pk").values_list("pk", flat=True)[:STEP])).delete()[0]


def forget_dead_letters(lease: Lease, *, keep_days: float, keep_rows: int) -> int:
    """Delete up to `STEP` dead letters that last came long ago, or are the oldest of too many; return how many."""
    with lease.writing() as head:
        oldest = DeadLetter.objects.order_by("last_seen_at", "pk")
        old = oldest.filter(last_seen_at__lt=head.now - timedelta(days=keep_days)).values_list("pk", flat=True)[:STEP]
        gone = list(old)
        if not gone:
            too_many = min(DeadLetter.objects.count() - keep_rows, STEP)
            gone = list(oldest.values_list("pk", flat=True)[: max(too_many, 0)])
        return DeadLetter.objects.filter(pk__in=gone).delete()[0]


def forget_minutes(lease: Lease) -> int:
    """Delete minute figures from more than a day ago or ahead; return how many. There are never more than a few."""
    kept = timedelta(minutes=KEPT_MINUTES)
    with lease.writing() as head:
        return MinuteFigures.objects.exclude(at__gte=head.now - kept, at__lte=head.now + kept).delete()[0]
