"""Waiting for the daemon's answer to a command."""

import time
from threading import BoundedSemaphore

from django.db import connection

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import has_expired
from marketplace_sync.models import Command

# Each waiter holds a thread of this process, and no database connection between looks.
MAX_WAITERS = 8
MAX_WAIT_SECONDS = 30
# The daemon looks for commands every 0.5 s.
LOOK_EVERY_SECONDS = 0.2

_places = BoundedSemaphore(MAX_WAITERS)


def wait_for(command: Command, seconds: float) -> Command:
    """The command as it is once it has ended, or after `seconds`, or at once when too many wait already.

    The thread that waits is this request's own: Django runs each request under ASGI in a thread-sensitive context
    of its own, so nobody else's request stands behind it.
    """
    if seconds <= 0 or ended(command) or not _places.acquire(blocking=False):
        return command
    deadline = time.monotonic() + seconds
    try:
        while not ended(command) and (left := deadline - time.monotonic()) > 0:
            if not connection.in_atomic_block:
                connection.close()
            time.sleep(min(LOOK_EVERY_SECONDS, left))
            command.refresh_from_db()
    finally:
        _places.release()
    return command


def ended(command: Command) -> bool:
    """Has it been answered, or has its time run out unanswered?"""
    return command.finished_at is not None or expired(command)


def expired(command: Command) -> bool:
    """Pending past its time by the database's clock: no daemon will take it on, or runs to say so."""
    return has_expired(command, database_now())
