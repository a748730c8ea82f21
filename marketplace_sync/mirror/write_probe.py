"""Find out why nothing can be written: the write lock is taken, or the database is read-only.

Used only when the daemon's heartbeat is too old: a daemon that waits for a lock cannot renew, and looks dead.
"""

from dataclasses import dataclass

from django.db import OperationalError, connection

# A short transaction of another process is over by then.
_SQLITE_WAIT_MS = 200
# The same on PostgreSQL, where the age of the transaction is known.
_SHORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WriteTrouble:
    """The reason why nothing can be written. On PostgreSQL: the session with the lock, and its transaction's age."""

    read_only: bool = False
    session: int | None = None
    seconds: float | None = None


def write_trouble() -> WriteTrouble | None:
    """Return why nothing can be written now; `None` if a write would succeed, or within a transaction.

    It writes nothing, and waits 0.2 s at most. Raises the database's errors when the database does not answer.
    """
    if connection.in_atomic_block:
        return None
    return _PROBES[connection.vendor]()


def _sqlite() -> WriteTrouble | None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        usual = int(cursor.fetchone()[0])
        cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_WAIT_MS}")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("ROLLBACK")
        except OperationalError as error:
            text = str(error)
            if "locked" in text:
                return WriteTrouble()
            if "readonly" in text:
                return WriteTrouble(read_only=True)
            raise
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual}")
    return None


# The head of the queue: sessions that block others, or that have more than a read lock on the lease, and do not wait
# themselves. This role may not see the transactions of another one; a prepared transaction has no session at all.
_LOCKED_BY = """
WITH waiting AS (
    SELECT DISTINCT locks.pid FROM pg_locks locks JOIN pg_stat_activity sessions ON sessions.pid = locks.pid
    WHERE NOT locks.granted AND sessions.datname = current_database()
), in_the_way AS (
    SELECT unnest(pg_blocking_pids(pid)) AS pid FROM waiting
    UNION
    SELECT pid FROM pg_locks
    WHERE relation = 'marketplace_sync_lease'::regclass AND granted AND mode <> 'AccessShareLock' AND pid IS NOT NULL
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT in_the_way.pid, extract(epoch FROM clock_timestamp() - sessions.xact_start)
FROM in_the_way LEFT JOIN pg_stat_activity sessions ON sessions.pid = in_the_way.pid
WHERE in_the_way.pid <> pg_backend_pid() AND in_the_way.pid NOT IN (SELECT pid FROM waiting)
ORDER BY sessions.xact_start NULLS LAST LIMIT 1
"""


def _postgresql() -> WriteTrouble | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean")
        if cursor.fetchone()[0]:
            return WriteTrouble(read_only=True)
        cursor.execute(_LOCKED_BY)
        found = cursor.fetchone()
    if found is None:
        return None
    session, seconds = found[0] or None, None if found[1] is None else float(found[1])
    if seconds is not None and seconds < _SHORT_SECONDS:
        return None
    return WriteTrouble(session=session, seconds=seconds)


_PROBES = {"sqlite": _sqlite, "postgresql": _postgresql}
