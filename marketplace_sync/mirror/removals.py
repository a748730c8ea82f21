"""Removals that a run held back, and what persons decided about them: approved or dismissed (law 5)."""

from collections.abc import Collection, Iterable

from django.db.models import Exists, OuterRef

from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import DismissedRemoval, HeldRemoval, Skill, SyncRun

State = SyncRun.State

# Rows per statement: SQLite takes some 30,000 parameters at most.
_BATCH = 5000


def held_removals(run_id: int) -> frozenset[str]:
    """Return the skills that a run would have removed, whatever has become of it since."""
    return frozenset(HeldRemoval.objects.filter(run_id=run_id).values_list("skill_id", flat=True))


def why_closed(run: SyncRun) -> str:
    """Return why nothing of what this run lists can be approved, "" when something can.

    That is so while it is held, or dismissed, or a newer held run lists some of the same.
    """
    match run.state:
        case State.HELD:
            return ""
        case State.SUPERSEDED if _waiting_still(run):
            return ""
        case State.SUPERSEDED:
            return f"Run {run.pk} was superseded, and no newer run holds any of its removals. See the newest run."
        case State.DISMISSED if _dismissed_still(run):
            return ""
        case State.DISMISSED:
            return f"Run {run.pk} was dismissed, and none of its skills is missing any more."
        case State.APPROVED:
            return f"The removals of run {run.pk} were approved already."
    return f"Run {run.pk} holds no removals: it is {run.state}."


def _waiting_still(run: SyncRun) -> bool:
    newer = HeldRemoval.objects.filter(run__state=State.HELD, run_id__gt=run.pk, skill_id=OuterRef("skill_id"))
    return HeldRemoval.objects.filter(Exists(newer), run=run).exists()


def _dismissed_still(run: SyncRun) -> bool:
    dismissed = DismissedRemoval.objects.filter(skill_id=OuterRef("skill_id"))
    return HeldRemoval.objects.filter(Exists(dismissed), run=run).exists()


def mark_approved(lease: Lease, run_id: int) -> None:
    """A person let the run's removals go ahead, and they have."""
    open_states = (State.HELD, State.SUPERSEDED, State.DISMISSED)
    with lease.writing():
        SyncRun.objects.filter(pk=run_id, state__in=open_states).update(state=State.APPROVED)


def dismiss(lease: Lease, run_id: int, *, by: str) -> int:
    """Keep the skills that a run would have removed; how many. Newer held runs with no others are dismissed too."""
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
    """Return those whose removal nobody has dismissed; in the writing transaction, where no other follows."""
    return frozenset(skill_ids) - set(DismissedRemoval.objects.values_list("skill_id", flat=True))


def forget_dismissed(relisted: Collection[str]) -> None:
    """Forget the dismissals of skills that are listed again, or gone; in the writing transaction of a run's end."""
    if not DismissedRemoval.objects.exists():
        return
    ids = sorted(relisted)
    for start in range(0, len(ids), _BATCH):
        DismissedRemoval.objects.filter(skill_id__in=ids[start : start + _BATCH]).delete()
    there = Skill.objects.filter(skill_id=OuterRef("skill_id"))
    DismissedRemoval.objects.filter(~Exists(there)).delete()
