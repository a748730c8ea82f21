"""Wait for the daemon's answer to a command."""

import time
from threading import BoundedSemaphore

from django.db import connection

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import has_expired
from marketplace_sync.models import Command

# Each waiting request occupies a thread of this process, but no database connection between queries.
MAX_WAITERS = 8
MAX_WAIT_SECONDS = 30
# The daemon looks for commands every 0.5 s.
POLL_SECONDS = 0.2

_waiters = BoundedSemaphore(MAX_WAITERS)


def wait_for(command: Command, seconds: float) -> Command:
    """Wait until the command has ended, but at most `seconds`; not at all if too many requests wait already.

    Return the command as it is then. Only this request's thread waits: under ASGI, Django runs each request in a
    thread-sensitive context of its own, so it delays no other request.
    """
    if seconds <= 0 or ended(command) or not _waiters.acquire(blocking=False):
        return command
    deadline = time.monotonic() + seconds
    try:
        while not ended(command) and (left := deadline - time.monotonic()) > 0:
            if not connection.in_atomic_block:
                connection.close()
            time.sleep(min(POLL_SECONDS, left))
            command.refresh_from_db()
    finally:
        _waiters.release()
    return command


def ended(command: Command) -> bool:
    """Return whether the daemon has answered, or the command has expired without an answer."""
    return command.finished_at is not None or expired(command)


def expired(command: Command) -> bool:
    """Return whether the command is pending after its time, by the database's clock: no daemon will execute it."""
    return has_expired(command, database_now())
