"""Removals on hold, and what was decided about them: approved or dismissed (law 5)."""

from collections.abc import Collection, Iterable

from django.db.models import Exists, OuterRef

from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import DismissedRemoval, HeldRemoval, Skill, SyncRun

State = SyncRun.State

# Rows per statement: SQLite takes some 30,000 parameters at most.
_BATCH = 5000


def held_removals(run_id: int) -> frozenset[str]:
    """Return the skills that a sync run would have removed, whatever was decided since."""
    return frozenset(HeldRemoval.objects.filter(run_id=run_id).values_list("skill_id", flat=True))


def why_closed(run: SyncRun) -> str:
    """Return why none of the removals of a sync run can be approved, "" when some can.

    Some can while the run is `held`, while one of its dismissals stands, or while a newer `held` run lists one of them.
    """
    match run.state:
        case State.HELD:
            return ""
        case State.SUPERSEDED:
            if _newer_run_lists_some(run):
                return ""
            return (
                f"Sync run {run.pk} was superseded, and no newer one has its removals on hold. Review the newest one."
            )
        case State.DISMISSED:
            if _still_dismissed(run):
                return ""
            return f"Sync run {run.pk} was dismissed, and none of its skills is missing any more."
        case State.APPROVED:
            return f"The removals of sync run {run.pk} were approved already."
        case _:  # any other state, also one that only a newer release knows
            return f"Sync run {run.pk} has no removals on hold: it is {run.state}."


def _newer_run_lists_some(run: SyncRun) -> bool:
    newer = HeldRemoval.objects.filter(run__state=State.HELD, run_id__gt=run.pk, skill_id=OuterRef("skill_id"))
    return HeldRemoval.objects.filter(Exists(newer), run=run).exists()


def _still_dismissed(run: SyncRun) -> bool:
    dismissed = DismissedRemoval.objects.filter(skill_id=OuterRef("skill_id"))
    return HeldRemoval.objects.filter(Exists(dismissed), run=run).exists()


def mark_approved(lease: Lease, run_id: int) -> None:
    """Mark a sync run whose approved removals were made."""
    open_states = (State.HELD, State.SUPERSEDED, State.DISMISSED)
    with lease.writing():
        SyncRun.objects.filter(pk=run_id, state__in=open_states).update(state=State.APPROVED)


def dismiss(lease: Lease, run_id: int, *, by: str) -> int:
    """Keep the skills that a sync run would have removed; return how many. `by`: the actor.

    Held runs that have no other removals on hold are dismissed too.
    """
    with lease.writing() as head:
        kept = sorted(held_removals(run_id))
        DismissedRemoval.objects.bulk_create(
            [
                DismissedRemoval(skill_id=skill_id, run_id=run_id, dismissed_at=head.now, dismissed_by=by)
                for skill_id in kept
            ],
            batch_size=_BATCH,
            ignore_conflicts=True,
        )
        SyncRun.objects.filter(pk=run_id, state__in=(State.HELD, State.SUPERSEDED)).update(state=State.DISMISSED)
        dismissed = DismissedRemoval.objects.filter(skill_id=OuterRef("skill_id"))
        for run in SyncRun.objects.filter(state=State.HELD):
            if not HeldRemoval.objects.filter(~Exists(dismissed), run=run).exists():
                SyncRun.objects.filter(pk=run.pk).update(state=State.DISMISSED)
        return len(kept)


def without_dismissed(skill_ids: Iterable[str]) -> frozenset[str]:
    """Return the skills whose removal nobody has dismissed.

    To be called in the writing transaction, so that no dismissal comes in between.
    """
    return frozenset(skill_ids) - set(DismissedRemoval.objects.values_list("skill_id", flat=True))


def forget_dismissed(relisted: Collection[str]) -> None:
    """Delete the dismissals of skills that are listed again or removed. Part of the transaction that ends a run."""
    if not DismissedRemoval.objects.exists():
        return
    ids = sorted(relisted)
    for start in range(0, len(ids), _BATCH):
        DismissedRemoval.objects.filter(skill_id__in=ids[start : start + _BATCH]).delete()
    there = Skill.objects.filter(skill_id=OuterRef("skill_id"))
    DismissedRemoval.objects.filter(~Exists(there)).delete()
