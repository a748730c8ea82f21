"""The lease: one writer at a time, told apart by an epoch (law 10).

A `Lease` is what its owner holds: the epoch under which it was taken. Every writing transaction is
opened by `Lease.writing()`, which locks the lease row and looks whether that epoch is still the
row's. So a paused owner that comes back after another took over writes nothing, and feed numbers,
given under the same lock, follow the order of commits. Ages are compared by the database's clock.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction

from marketplace_sync.mirror.clock import NOW, as_moment, database_now
from marketplace_sync.mirror.sql import execute
from marketplace_sync.models import LeaseRow, Standby

# A holder that has not renewed for this long has lost its claim.
LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
# A daemon that waits says so this often at least, or is no longer counted.
STANDBY_SECONDS = 15.0


class LeaseTaken(Exception):
    """Somebody else holds the lease. `holder` is its `host:pid`, `age` the seconds since it renewed."""

    def __init__(self, holder: str, age: float) -> None:
        super().__init__(f"the mirror is being written by {holder} (seen {age:.0f} s ago)")
        self.holder = holder
        self.age = age


class LeaseLost(Exception):
    """The lease has gone to another owner; nothing was written."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lease has gone to {holder or 'nobody'}; this process writes no more")
        self.holder = holder


@dataclass(slots=True)
class Head:
    """The lease row, locked. `feed_seq` is the last feed number given; raise it to give more."""

    feed_seq: int
    now: datetime

    def next_seq(self) -> int:
        self.feed_seq += 1
        return self.feed_seq


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write under `epoch`, as `holder` (`host:pid`)."""

    epoch: int
    holder: str

    @contextmanager
    def writing(self) -> Iterator[Head]:
        """A transaction that holds the lease row's lock. Raises `LeaseLost` before anything is written.

        It renews the lease where that is due: whoever writes lives, and on SQLite, where nobody queues for the lock,
        a flood of batches could keep the renewal of its own waiting past the lease's end.
        """
        with transaction.atomic():
            row = next(iter(execute(_LOCK[connection.vendor])), None)
            if row is None or row[0] != self.epoch:
                raise LeaseLost(row[1] if row else "")
            head = Head(row[2], as_moment(row[4]))
            yield head
            if head.feed_seq != row[2]:
                execute("UPDATE marketplace_sync_lease SET feed_seq = %s WHERE id = 1", (head.feed_seq,))
            if row[3] is not None and (head.now - _moment(row[3])).total_seconds() >= RENEW_SECONDS:
                LeaseRow.objects.filter(pk=1).update(renewed_at=head.now)

    def renew(self) -> None:
        """Say that the owner lives. Raises `LeaseLost`."""
        with self.writing() as head:
            LeaseRow.objects.filter(pk=1).update(renewed_at=head.now)

    def release(self) -> None:
        """Give it back, so that the next owner need not wait. Quietly nothing when it is gone already."""
        with transaction.atomic():
            LeaseRow.objects.filter(pk=1, epoch=self.epoch).update(holder="", renewed_at=None)


# The row, and the time at which it was locked.
_LOCK = {
    "postgresql": "WITH locked AS MATERIALIZED (SELECT epoch, holder, feed_seq, renewed_at "
    f"FROM marketplace_sync_lease WHERE id = 1 FOR UPDATE) SELECT locked.*, {NOW['postgresql']} FROM locked",
    # Transactions begin IMMEDIATE: the whole file is ours already.
    "sqlite": f"SELECT epoch, holder, feed_seq, renewed_at, {NOW['sqlite']} FROM marketplace_sync_lease WHERE id = 1",
}


def _moment(column: datetime) -> datetime:
    """A time as a plain cursor gives it: that of SQLite does not say that it is UTC."""
    return column if column.tzinfo else column.replace(tzinfo=UTC)


def acquire(holder: str) -> Lease:
    """Take the lease, or raise `LeaseTaken`. A new owner has a new epoch, also when it held the last one."""
    with transaction.atomic():
        LeaseRow.objects.get_or_create(pk=1)
        row = LeaseRow.objects.select_for_update().get(pk=1)
        now = database_now()
        if row.holder and row.renewed_at is not None:
            age = (now - row.renewed_at).total_seconds()
            if age < LEASE_SECONDS:
                raise LeaseTaken(row.holder, max(age, 0.0))
        row.holder, row.epoch, row.renewed_at = holder, row.epoch + 1, now
        row.save()
        Standby.objects.filter(holder=holder).delete()
        return Lease(row.epoch, holder)


def stand_by(holder: str) -> None:
    """Say that `holder` waits for the lease."""
    now = database_now()
    Standby.objects.update_or_create(holder=holder, defaults={"seen_at": now})
    Standby.objects.filter(seen_at__lt=now - timedelta(seconds=STANDBY_SECONDS)).delete()


def leave_standby(holder: str) -> None:
    """`holder` waits no more."""
    Standby.objects.filter(holder=holder).delete()
