"""The lease: one writer at a time, identified by an epoch (law 10).

A `Lease` is its owner's proof: the epoch under which it was taken. `Lease.writing()` or `locking()` opens every writing
transaction; they lock the lease row and compare its epoch. So a paused owner that continues after another took over
writes nothing. Feed numbers are taken under the same lock, so they follow the order of commits. An observer judges
whether the owner is alive by watching the row change (`engine.liveness`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import OperationalError, connection, transaction

from marketplace_sync.engine.liveness import Heartbeat, Life, Watch
from marketplace_sync.mirror.clock import as_moment, database_now, within
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.models import LeaseRow, Standby

# A holder that has not renewed for this long loses the lease to the next daemon that takes it.
LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
# A standby that has not written its row for this long is no longer counted.
STANDBY_SECONDS = 15.0


# A command that takes the lease for one piece of work does not stand by. If the time of renewal is not believable, it
# watches the row for this long: enough for two renewals.
WATCH_SECONDS = 2 * RENEW_SECONDS + 1.0


class LeaseTakenError(Exception):
    """Another process owns the lease. `holder` is its `host:pid`, `age` the seconds since it renewed.

    `uncertain`: nothing shows whether the holder is alive. The time of its renewal is ahead of the database's clock, or
    there is none; look again with the same `Watch`.
    """

    def __init__(self, holder: str, age: float | None, *, uncertain: bool = False) -> None:
        if age is None:
            seen = "no time of renewal is stored"
        elif age < 0 and uncertain:
            seen = f"its renewal is {-age:.0f} s ahead of the database's clock"
        else:
            seen = f"seen {max(age, 0.0):.0f} s ago"
        super().__init__(f"the mirror is being written by {holder} ({seen})")
        self.holder = holder
        self.age = age
        self.uncertain = uncertain


class LeaseLostError(Exception):
    """Another process has taken the lease; nothing was written."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lease has gone to {holder or 'nobody'}; this process writes no more")
        self.holder = holder


@dataclass(slots=True)
class Head:
    """The lease row, locked. `feed_seq` is the newest feed number; raise it to take more."""

    feed_seq: int
    now: datetime
    _written: int = field(init=False)

    def __post_init__(self) -> None:
        self._written = self.feed_seq

    def next_seq(self) -> int:
        """Take the next feed number."""
        self.feed_seq += 1
        return self.feed_seq

    def write(self) -> None:
        """Write the newest feed number to the row, if it has changed."""
        if self.feed_seq != self._written:
            dialect().execute("UPDATE marketplace_sync_lease SET feed_seq = %s WHERE id = 1", (self.feed_seq,))
            self._written = self.feed_seq


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write under `epoch`, as `holder` (`host:pid`)."""

    epoch: int
    holder: str

    @contextmanager
    def writing(self) -> Iterator[Head]:
        """Open a transaction that locks the lease row. Raises `LeaseLostError` before anything is written.

        It renews the lease if that is due: a process that writes is alive. SQLite has no queue for its lock, so during
        a flood of batches a separate renewal could wait until the lease has ended.
        """
        with self.locking() as locked:
            yield locked()

    @contextmanager
    def locking(self, *, few: bool = False) -> Iterator[Callable[[], Head]]:
        """Open the same transaction for a caller that reads first; yield a function that checks the epoch.

        The function raises `LeaseLostError`. Call it before anything is written; before the commit it is called anyway.
        `few`: all statements go in one exchange (see `Dialect.pipeline`), the reads together with the lock.
        """
        head: Head | None = None
        due = False
        with transaction.atomic(), dialect().pipeline() if few else nullcontext():
            answer = dialect().start_select(dialect().lock_lease)

            def locked() -> Head:
                nonlocal head, due
                row = next(iter(answer()), None)
                if row is None or row[0] != self.epoch:
                    raise LeaseLostError(row[1] if row else "")
                head = Head(row[2], as_moment(row[4]))
                due = bool(row[1]) and _renewal_is_due(row[3], head.now)
                return head

            yield locked
            head = head or locked()
            head.write()
            if due:
                LeaseRow.objects.filter(pk=1).update(renewed_at=head.now)

    def renew(self) -> None:
        """Renew the lease, the sign that its owner is alive. Raises `LeaseLostError`."""
        with self.writing() as head:
            LeaseRow.objects.filter(pk=1).update(renewed_at=head.now)

    def release(self) -> None:
        """Give the lease back, so that the next owner need not wait. Does nothing if another process has it already."""
        with transaction.atomic():
            LeaseRow.objects.filter(pk=1, epoch=self.epoch).update(holder="", renewed_at=None)


def _moment(column: datetime) -> datetime:
    """Return a time from a plain cursor as aware: SQLite's has no time zone, and is UTC."""
    return column if column.tzinfo else column.replace(tzinfo=UTC)


def _renewal_is_due(renewed: datetime | None, now: datetime) -> bool:
    """Return whether to renew. A time ahead of the clock, which was set back since, counts as due."""
    return renewed is None or not 0 <= (now - _moment(renewed)).total_seconds() < RENEW_SECONDS


def watch_of_standby() -> Watch:
    """Return the watch of a standby, which looks at the lease repeatedly until it may take it."""
    return Watch(limit=LEASE_SECONDS, patience=LEASE_SECONDS)


def watch_of_one_look() -> Watch:
    """Return the watch of a command, which takes the lease for one piece of work or gives up."""
    return Watch(limit=LEASE_SECONDS, patience=WATCH_SECONDS)


def acquire(holder: str, watch: Watch | None = None, *, clock: Callable[[], float] = time.monotonic) -> Lease:
    """Take the lease, or raise `LeaseTakenError`. A new owner gets a new epoch, even if it owned the lease before.

    `watch` remembers earlier looks. Without one, a lease with an unbelievable time of renewal is never taken over.
    A wrong take-over does not damage data: the epoch prevents the earlier owner from writing.

    On PostgreSQL an owner that was paused or cut off within a transaction still has the row's lock. Once its lease has
    expired this ends its sessions, since it has lost the right to commit. (SQLite's lock is the operating system's:
    nobody can take it from a living process.)
    """
    watch = watch or watch_of_standby()
    try:
        return _take(holder, watch, clock)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
    _refuse_while_owned(LeaseRow.objects.get(pk=1), database_now(), watch, clock())
    with connection.cursor() as cursor:
        cursor.execute(_END_SESSIONS)
    return _take(holder, watch, clock)


def watch_doubtful_lease(
    *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
) -> Watch:
    """Watch the lease until it is certain whether its holder is alive; return the watch for `acquire`.

    This takes `WATCH_SECONDS` if the time of renewal is not believable, and no time otherwise. Call it outside of a
    transaction: within one, the holder could not renew.
    """
    watch = watch_of_one_look()
    while (row := LeaseRow.objects.filter(pk=1).first()) is not None and row.holder:
        if _look(row, database_now(), watch, clock()) is not Life.UNCERTAIN:
            break
        sleep(0.25)
    return watch


def _take(holder: str, watch: Watch, clock: Callable[[], float]) -> Lease:
    with transaction.atomic():
        dialect().limit_lock_wait(_LOCK_WAIT_MS)
        LeaseRow.objects.get_or_create(pk=1)
        row = LeaseRow.objects.select_for_update().get(pk=1)
        now = database_now()
        _refuse_while_owned(row, now, watch, clock())
        row.holder, row.epoch, row.renewed_at = holder, row.epoch + 1, now
        row.save()
        Standby.objects.filter(holder=holder).delete()
        return Lease(row.epoch, holder)


def _refuse_while_owned(row: LeaseRow, database_now: datetime, watch: Watch, now: float) -> None:
    """Raise `LeaseTakenError` unless the lease is free or its holder is dead."""
    if not row.holder:
        return
    life = _look(row, database_now, watch, now)
    if life is not Life.DEAD:
        age = None if row.renewed_at is None else (database_now - row.renewed_at).total_seconds()
        raise LeaseTakenError(row.holder, age, uncertain=life is Life.UNCERTAIN)


def _look(row: LeaseRow, database_now: datetime, watch: Watch, now: float) -> Life:
    return watch.look(Heartbeat(row.epoch, row.renewed_at), database_now=database_now, now=now)


# A batch locks the row for a fraction of this.
_LOCK_WAIT_MS = 2000
_LOCK_NOT_AVAILABLE = "55P03"
# Ends all sessions that have the row's lock or wait for it; a session that only waited reconnects and tries again.
# PostgreSQL shows no row locks here, but a session with one also has this lock on the table.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'marketplace_sync_lease'::regclass "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND mode IN ('RowShareLock', 'RowExclusiveLock') AND pid <> pg_backend_pid()"
)


def stand_by(holder: str) -> None:
    """Write that `holder` waits for the lease, and delete the rows of standbys that are gone."""
    now = database_now()
    Standby.objects.update_or_create(holder=holder, defaults={"seen_at": now})
    Standby.objects.exclude(within("seen_at", now, STANDBY_SECONDS)).delete()


def leave_standby(holder: str) -> None:
    """Delete the row of a standby that no longer waits."""
    Standby.objects.filter(holder=holder).delete()
