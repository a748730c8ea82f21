"""The rows of sync runs: begin, save progress, end, supersede."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from marketplace_sync.mirror.absence import BegunRun
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.removals import forget_dismissed, without_dismissed
from marketplace_sync.models import HeldRemoval, SyncRun

State = SyncRun.State

# Law 16: a full sync compares the stored rows themselves at least this often.
BY_ROW_EVERY = timedelta(hours=24)


@dataclass(slots=True)
class Progress:
    """The progress of a full sync; the columns of `SyncRun` have the same names."""

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
    """Begin a sync run. First mark the run that a dead daemon left open as interrupted.

    `by_row`: it compares the stored rows themselves, even if that is not due. `interval`: the longest time until the
    next run.
    """
    with lease.writing() as head:
        _interrupt_open(head.now)
        run = SyncRun.objects.create(reason=reason, epoch=lease.epoch, started_at=head.now)
        return BegunRun(run.pk, head.feed_seq, by_row or _by_row_is_due(head.now, interval))


def _by_row_is_due(now: datetime, interval: timedelta) -> bool:
    """Return whether this run must compare rows, since the next would be too late. Ignores a time in the future."""
    last = SyncRun.objects.filter(by_row=True).order_by("-id").values_list("started_at", flat=True).first()
    return last is None or not timedelta(0) <= now - last <= BY_ROW_EVERY - 2 * interval


def interrupt_open_runs(lease: Lease) -> int:
    """Mark runs that a dead daemon left open as interrupted; return how many there were."""
    with lease.writing() as head:
        return _interrupt_open(head.now)


def _interrupt_open(now: object) -> int:
    return SyncRun.objects.filter(state=State.RUNNING).update(
        state=State.INTERRUPTED, finished_at=now, error="the daemon stopped before the full sync ended"
    )


def save_progress(lease: Lease, run_id: int, progress: Progress) -> None:
    """Write the progress to the run's row."""
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
    held_removals: Collection[str] = (),
    held_reason: str = "",
    by_row: bool = False,
    relisted: Collection[str] = (),
) -> int:
    """End a sync run, and return how many of its removals are on hold.

    `unclean_reason`: "" for a clean run, `None` for one that failed before that was known. `held_removals`: skills
    whose removal needs approval, for `held_reason`. `by_row`: the run compared every listed skill with the stored row
    itself. `relisted`: skills whose removal was dismissed and that are listed again.

    A removal that was dismissed during the run is not put on hold; a run with no others is done. A clean run supersedes
    the older held runs, with removals on hold or without: it has read the same marketplace later.
    """
    with lease.writing() as head:
        forget_dismissed(relisted)
        if held_removals and not (held_removals := without_dismissed(held_removals)):
            state, held_reason = State.DEGRADED if progress.refused else State.DONE, ""
        SyncRun.objects.filter(pk=run_id).update(
            state=state,
            finished_at=head.now,
            is_clean=None if unclean_reason is None else not unclean_reason,
            unclean_reason=(unclean_reason or "")[:500],
            error=error[:500],
            held_count=len(held_removals),
            held_reason=held_reason[:500],
            by_row=by_row,
            **asdict(progress),
        )
        HeldRemoval.objects.bulk_create(
            [HeldRemoval(run_id=run_id, skill_id=skill_id) for skill_id in sorted(held_removals)],
            batch_size=5000,
            ignore_conflicts=True,  # repeated if a connection was lost after the commit
        )
        if unclean_reason == "":
            older = SyncRun.objects.filter(state=State.HELD, pk__lt=run_id)
            older.update(state=State.SUPERSEDED)
        return len(held_removals)
