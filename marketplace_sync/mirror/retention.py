"""What is forgotten, and when."""

from datetime import timedelta

from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import FeedChange, Tombstone

# Law 3: long enough for every delayed record, short enough that an undelete with an old date heals.
GRAVES_KEPT = timedelta(days=7)
# Rows a step, so that no step holds the lease for long.
STEP = 1000


def forget_graves(lease: Lease) -> int:
    """Forget up to `STEP` graves that are old enough; how many went."""
    with lease.writing() as head:
        old = Tombstone.objects.filter(buried_at__lt=head.now - GRAVES_KEPT).order_by("buried_at")
        return Tombstone.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:STEP])).delete()[0]


def forget_changes(lease: Lease, *, keep_days: float, keep_rows: int) -> int:
    """Forget up to `STEP` of the oldest feed rows that are too old or too many; how many went."""
    with lease.writing() as head:
        first = FeedChange.objects.order_by("seq").values_list("seq", flat=True).first()
        if first is None:
            return 0
        end = min(first + STEP, head.feed_seq + 1)
        step = FeedChange.objects.filter(seq__lt=end)
        too_many = step.filter(seq__lte=head.feed_seq - keep_rows)
        too_old = step.filter(at__lt=head.now - timedelta(days=keep_days))
        return too_many.delete()[0] + too_old.delete()[0]
