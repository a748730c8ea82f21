"""The record of full passes: begun, seen under way, ended, held back, superseded."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from marketplace_sync.mirror.absence import BegunRun
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.removals import forget_dismissed, without_dismissed
from marketplace_sync.models import HeldRemoval, SyncRun

State = SyncRun.State

# Law 16: so often at least a full sync compares the stored rows themselves.
BY_ROW_EVERY = timedelta(hours=24)


@dataclass(slots=True)
class Progress:
    """How far a pass is; the columns of `SyncRun` by the same names."""

    pages_done: int = 0
    pages_total: int | None = None
    listed: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0
    refused: int = 0
    removed: int = 0
    listed_categories: int = 0
    refused_categories: int = 0


def begin_run(lease: Lease, reason: str, *, by_row: bool = False, interval: timedelta = timedelta(0)) -> BegunRun:
    """Open a run. Whatever a dead daemon left open is closed first.

    `by_row`: it compares the stored rows themselves, due or not. `interval`: time until the next run at most.
    """
    with lease.writing() as head:
        _interrupt_open(head.now)
        run = SyncRun.objects.create(reason=reason, epoch=lease.epoch, started_at=head.now)
        return BegunRun(run.pk, head.feed_seq, by_row or _by_row_is_due(head.now, interval))


def _by_row_is_due(now: datetime, interval: timedelta) -> bool:
    """Would the next run, with its own time, be too late to be by row? A time that is still to come says nothing."""
    last = SyncRun.objects.filter(by_row=True).order_by("-id").values_list("started_at", flat=True).first()
    return last is None or not timedelta(0) <= now - last <= BY_ROW_EVERY - 2 * interval


def interrupt_open_runs(lease: Lease) -> int:
    """Close what a dead daemon left open; how many there were."""
    with lease.writing() as head:
        return _interrupt_open(head.now)


def _interrupt_open(now: object) -> int:
    return SyncRun.objects.filter(state=State.RUNNING).update(
        state=State.INTERRUPTED, finished_at=now, error="the daemon stopped before the pass ended"
    )


def save_progress(lease: Lease, run_id: int, progress: Progress) -> None:
    """Make progress visible."""
    with lease.writing():
        SyncRun.objects.filter(pk=run_id).update(**asdict(progress))


def end_run(
    lease: Lease,
    run_id: int,
    state: SyncRun.State,
    progress: Progress,
    *,
    unclean_reason: str | None = None,
    error: str = "",
    held: Collection[str] = (),
    held_reason: str = "",
    by_row: bool = False,
    relisted: Collection[str] = (),
) -> int:
    """Close a run, and return how many removals it holds.

    `unclean_reason`: "" for a clean one, `None` when it never came to that. `by_row`: it compared every listed skill
    with the stored row itself. `relisted`: skills whose removal was dismissed and that are listed again. A removal
    that was dismissed while the run was under way is not held; a run with no others is done.

    A run that holds removals, and a clean one that had none to hold, supersede the older held runs: they looked at the
    same marketplace later.
    """
    with lease.writing() as head:
        forget_dismissed(relisted)
        if held and not (held := without_dismissed(held)):
            state, held_reason = State.DEGRADED if progress.refused else State.DONE, ""
        SyncRun.objects.filter(pk=run_id).update(
            state=state,
            finished_at=head.now,
            is_clean=None if unclean_reason is None else not unclean_reason,
            unclean_reason=(unclean_reason or "")[:500],
            error=error[:500],
            held_count=len(held),
            held_reason=held_reason[:500],
            by_row=by_row,
            **asdict(progress),
        )
        HeldRemoval.objects.bulk_create(
            [HeldRemoval(run_id=run_id, skill_id=skill_id) for skill_id in sorted(held)],
            batch_size=5000,
            ignore_conflicts=True,  # said twice where a connection was lost after the commit
        )
        if unclean_reason == "":
            older = SyncRun.objects.filter(state=State.HELD, pk__lt=run_id)
            older.update(state=State.SUPERSEDED)
        return len(held)
