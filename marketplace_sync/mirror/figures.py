"""Minute figures: one row per minute, written under the lease, kept for a day."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from marketplace_sync.engine.latency import quantile
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import Category, DeadLetter, MinuteFigures, Skill, WebSocketState

# The charts show 24 hours; a monitoring system keeps more.
KEPT_MINUTES = 24 * 60


def minute_of(moment: datetime) -> datetime:
    """Return the beginning of the minute, the primary key of its row."""
    return moment.replace(second=0, microsecond=0)


def add_to_minute(now: datetime, grown: Mapping[str, int], lags: Mapping[int, int]) -> None:
    """Add to the row of the minute of `now`, within the caller's transaction under the lease.

    `grown`: by how much each total has grown. `lags`: how many of these messages were how late, by bucket. Without
    growth this adds nothing: it is a repetition, because the answer of the first commit was lost.
    """
    if not any(grown.values()):
        return
    row = _row_of(now)
    for name, count in grown.items():
        setattr(row, name, getattr(row, name) + count)
    if lags:
        counts = lags_of(row) + Counter(lags)
        row.lags = {str(bucket): count for bucket, count in counts.items()}
        row.lag_p50, row.lag_p99 = quantile(counts, 0.5), quantile(counts, 0.99)
    row.save()


def count_minute(lease: Lease) -> None:
    """Write the current sizes into this minute's row, and, if the state is `live`, that the mirror is in sync."""
    # Before the lock: the writer must not wait while the catalogue is counted.
    skills, categories = Skill.objects.count(), Category.objects.count()
    dead_letters = DeadLetter.objects.filter(state=DeadLetter.State.OPEN).count()
    with lease.writing() as head:
        row = _row_of(head.now)
        row.skills, row.categories, row.open_dead_letters = skills, categories, dead_letters
        row.save()
        WebSocketState.objects.filter(pk=1, state=WebSocketState.State.LIVE, complete=True).update(in_sync_at=head.now)


def lags_of(*rows: MinuteFigures) -> Counter[int]:
    """Return the sum of the histograms of these minutes."""
    counts: Counter[int] = Counter()
    for row in rows:
        counts.update({int(bucket): count for bucket, count in row.lags.items()})
    return counts


def _row_of(now: datetime) -> MinuteFigures:
    minute = minute_of(now)
    return MinuteFigures.objects.filter(pk=minute).first() or MinuteFigures(at=minute)
