"""The lease: one writer at a time, told apart by an epoch (law 10).

A `Lease` is what its owner holds: the epoch under which it was taken. Every writing transaction is
opened by `Lease.writing()` or `locking()`, which lock the lease row and look whether that epoch is
still the row's. So a paused owner that comes back after another took over writes nothing, and feed
numbers, given under the same lock, follow the order of commits. Whether the owner lives is judged by watching the
row change (`engine.liveness`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import OperationalError, connection, transaction

from marketplace_sync.engine.liveness import Heartbeat, Life, Watch
from marketplace_sync.mirror.clock import NOW, as_moment, database_now, within
from marketplace_sync.mirror.sql import ask, at_once, execute
from marketplace_sync.models import LeaseRow, Standby

# A holder that has not renewed for this long has lost its claim.
LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
# A daemon that waits says so this often at least, or is no longer counted.
STANDBY_SECONDS = 15.0


# Who takes the lease for one piece of work does not stand by. It watches a renewal whose time is not believable for
# this long: two renewals would have come.
WATCH_SECONDS = 2 * RENEW_SECONDS + 1.0


class LeaseTakenError(Exception):
    """Somebody else holds the lease. `holder` is its `host:pid`, `age` the seconds since it renewed.

    `uncertain`: nothing shows that the holder lives. The time of its renewal is ahead of the database's clock, or
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
    """The lease has gone to another owner; nothing was written."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lease has gone to {holder or 'nobody'}; this process writes no more")
        self.holder = holder


@dataclass(slots=True)
class Head:
    """The lease row, locked. `feed_seq` is the last feed number given; raise it to give more."""

    feed_seq: int
    now: datetime
    _written: int = field(init=False)

    def __post_init__(self) -> None:
        self._written = self.feed_seq

    def next_seq(self) -> int:
        self.feed_seq += 1
        return self.feed_seq

    def write(self) -> None:
        """Write down the last number given."""
        if self.feed_seq != self._written:
            execute("UPDATE marketplace_sync_lease SET feed_seq = %s WHERE id = 1", (self.feed_seq,))
            self._written = self.feed_seq


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write under `epoch`, as `holder` (`host:pid`)."""

    epoch: int
    holder: str

    @contextmanager
    def writing(self) -> Iterator[Head]:
        """A transaction that holds the lease row's lock. Raises `LeaseLostError` before anything is written.

        It renews the lease where that is due: whoever writes lives, and on SQLite, where nobody queues for the lock,
        a flood of batches could keep the renewal of its own waiting past the lease's end.
        """
        with self.locking() as locked:
            yield locked()

    @contextmanager
    def locking(self, *, few: bool = False) -> Iterator[Callable[[], Head]]:
        """The same, for who has to read first: what is given looks whose the lease is, and raises `LeaseLostError`.

        That is to be called before anything is written; at the latest it is done before the commit. `few`: all
        statements go `at_once`, what is read with the lock.
        """
        head: Head | None = None
        due = False
        with transaction.atomic(), at_once() if few else nullcontext():
            answer = ask(_LOCK[connection.vendor])

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
        """Say that the owner lives. Raises `LeaseLostError`."""
        with self.writing() as head:
            LeaseRow.objects.filter(pk=1).update(renewed_at=head.now)

    def release(self) -> None:
        """Give it back, so that the next owner need not wait. Quietly nothing when it is gone already."""
        with transaction.atomic():
            LeaseRow.objects.filter(pk=1, epoch=self.epoch).update(holder="", renewed_at=None)


# How PostgreSQL is to plan the statements of a writing transaction: once for good, as planning one takes longer than
# running it; by the keys, also where it was planned when the table was empty; and without compiling it, for which a
# scan that is "off" looks expensive enough.
_PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}
_PLANNED = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _PLANNING.items())
# The row, and the time at which it was locked.
_LOCK = {
    "postgresql": "WITH locked AS MATERIALIZED (SELECT epoch, holder, feed_seq, renewed_at "
    "FROM marketplace_sync_lease WHERE id = 1 FOR UPDATE) "
    f"SELECT locked.*, {NOW['postgresql']}, {_PLANNED} FROM locked",
    # Transactions begin IMMEDIATE: the whole file is ours already.
    "sqlite": f"SELECT epoch, holder, feed_seq, renewed_at, {NOW['sqlite']} FROM marketplace_sync_lease WHERE id = 1",
}


def _moment(column: datetime) -> datetime:
    """A time as a plain cursor gives it: that of SQLite does not say that it is UTC."""
    return column if column.tzinfo else column.replace(tzinfo=UTC)


def _renewal_is_due(renewed: datetime | None, now: datetime) -> bool:
    """A time ahead of the clock, which was put back then, is no reason to wait."""
    return renewed is None or not 0 <= (now - _moment(renewed)).total_seconds() < RENEW_SECONDS


def watch_of_standby() -> Watch:
    """Return the memory of a daemon that looks at the lease again and again until it may take it."""
    return Watch(limit=LEASE_SECONDS, patience=LEASE_SECONDS)


def watch_of_one_look() -> Watch:
    """Return the memory of a command that takes the lease for one piece of work, or gives up."""
    return Watch(limit=LEASE_SECONDS, patience=WATCH_SECONDS)


def acquire(holder: str, watch: Watch | None = None, *, clock: Callable[[], float] = time.monotonic) -> Lease:
    """Take the lease, or raise `LeaseTakenError`. A new owner has a new epoch, also when it held the last one.

    `watch` remembers what the last looks saw. Without one a renewal whose time is not believable is never taken over.
    A wrong take-over does no harm to the data: the epoch keeps the last owner from writing.

    On PostgreSQL an owner that was paused, or cut off, in the middle of a transaction still has the row's lock. Once
    its lease has run out its sessions are ended: what they had not committed it has no right to any more. (SQLite's
    lock is the operating system's, and nobody can take it from a process that lives.)
    """
    watch = watch or watch_of_standby()
    try:
        return _take(holder, watch, clock)
    except OperationalError as fault:
        if getattr(fault.__cause__, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
    _refuse_while_held(LeaseRow.objects.get(pk=1), database_now(), watch, clock())
    with connection.cursor() as cursor:
        cursor.execute(_END_SESSIONS)
    return _take(holder, watch, clock)


def watch_doubtful_lease(
    *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
) -> Watch:
    """Look at the lease until it is certain whether its holder lives; return what was seen, for `acquire`.

    That takes `WATCH_SECONDS` where the renewal's time is not believable, and no time otherwise. Call it outside of a
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
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {_LOCK_WAIT_MS}")
        LeaseRow.objects.get_or_create(pk=1)
        row = LeaseRow.objects.select_for_update().get(pk=1)
        now = database_now()
        _refuse_while_held(row, now, watch, clock())
        row.holder, row.epoch, row.renewed_at = holder, row.epoch + 1, now
        row.save()
        Standby.objects.filter(holder=holder).delete()
        return Lease(row.epoch, holder)


def _refuse_while_held(row: LeaseRow, database_now: datetime, watch: Watch, now: float) -> None:
    """Raise `LeaseTakenError` unless the lease is free or its holder is dead."""
    if not row.holder:
        return
    life = _look(row, database_now, watch, now)
    if life is not Life.DEAD:
        age = None if row.renewed_at is None else (database_now - row.renewed_at).total_seconds()
        raise LeaseTakenError(row.holder, age, uncertain=life is Life.UNCERTAIN)


def _look(row: LeaseRow, database_now: datetime, watch: Watch, now: float) -> Life:
    return watch.look(Heartbeat(row.epoch, row.renewed_at), database_now=database_now, now=now)


# A batch holds the row's lock for a fraction of this.
_LOCK_WAIT_MS = 2000
_LOCK_NOT_AVAILABLE = "55P03"
# Whoever has the row's lock or waits for it; a bystander among those who wait tries again. The table's lock is what
# shows who has the row's.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'marketplace_sync_lease'::regclass "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND mode IN ('RowShareLock', 'RowExclusiveLock') AND pid <> pg_backend_pid()"
)


def stand_by(holder: str) -> None:
    """Say that `holder` waits for the lease."""
    now = database_now()
    Standby.objects.update_or_create(holder=holder, defaults={"seen_at": now})
    Standby.objects.exclude(within("seen_at", now, STANDBY_SECONDS)).delete()


def leave_standby(holder: str) -> None:
    """`holder` waits no more."""
    Standby.objects.filter(holder=holder).delete()
