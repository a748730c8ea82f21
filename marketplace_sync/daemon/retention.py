"""The task that deletes what is older than its retention, in small steps."""

import asyncio
from collections.abc import Callable
from functools import partial

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.session import Session
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.retention import (
    forget_changes,
    forget_commands,
    forget_dead_letters,
    forget_minutes,
    forget_runs,
    forget_tombstones,
)

_EVERY_SECONDS = 60.0


async def prune(session: Session, config: SyncConfig) -> None:
    """Delete old rows until cancelled; each step deletes a bounded number and lets other work in between."""
    steps = _steps(session.lease, config)
    while True:
        deleted = 0
        for step in steps:
            deleted += await session.database.control(step)
        await asyncio.sleep(0 if deleted else _EVERY_SECONDS)


def _steps(lease: Lease, config: SyncConfig) -> list[Callable[[], int]]:
    """Return the deletions; each returns how many rows it deleted."""
    return [
        partial(forget_tombstones, lease),
        partial(forget_minutes, lease),
        partial(forget_changes, lease, keep_days=config.feed_keep_days, keep_rows=config.feed_keep_rows),
        partial(forget_runs, lease, keep_days=config.runs_keep_days),
        partial(forget_commands, lease, keep_days=config.commands_keep_days),
        partial(
            forget_dead_letters, lease, keep_days=config.dead_letters_keep_days, keep_rows=config.dead_letters_keep_rows
        ),
    ]
