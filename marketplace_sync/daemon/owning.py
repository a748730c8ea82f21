"""Take the lease: wait for it as a standby, or take it for one piece of work."""

import asyncio
import os
import socket

import structlog

from marketplace_sync.daemon.database import Database
from marketplace_sync.mirror.lease import (
    Lease,
    LeaseTakenError,
    acquire,
    leave_standby,
    stand_by,
    watch_of_one_look,
    watch_of_standby,
)

log = structlog.get_logger(__name__)

_STANDBY_LOOKS_EVERY = 1.0
_DOUBTFUL_LOOKS_EVERY = 0.25


def holder_name() -> str:
    """Return the name of this process in the lease: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def wait_for_lease(database: Database, holder: str, stop: asyncio.Event) -> Lease | None:
    """Wait until the lease is free and take it. Return `None` if `stop` is set first."""
    logged = ""
    watch = watch_of_standby()
    while not stop.is_set():
        try:
            lease = await database.control(acquire, holder, watch)
        except LeaseTakenError as taken:
            if taken.holder != logged:
                log.info("standing_by", holder=taken.holder)
                logged = taken.holder
            await database.control(stand_by, holder)
        else:
            log.info("lease_taken", epoch=lease.epoch)
            return lease
        await _pause(stop, _STANDBY_LOOKS_EVERY)
    await database.control(leave_standby, holder)
    return None


async def take_lease(database: Database, holder: str, stop: asyncio.Event) -> Lease:
    """Take the lease for one piece of work. Raise `LeaseTakenError` if its holder is alive, or `stop` is set.

    Wait only if nothing shows whether the holder is alive, for `mirror.lease.WATCH_SECONDS` at most.
    """
    watch = watch_of_one_look()
    while True:
        try:
            return await database.control(acquire, holder, watch)
        except LeaseTakenError as taken:
            if not taken.uncertain or stop.is_set():
                raise
        await _pause(stop, _DOUBTFUL_LOOKS_EVERY)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for `seconds`, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
