"""Requests of people and agents, as the daemon sees them: open, accepted, answered, expired (law 11)."""

from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Q

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import Command

State = Command.State

# A request that no daemon has accepted for this long is expired: who asked wants to hear so.
EXPIRES_AFTER = timedelta(seconds=60)


def open_commands() -> Sequence[Command]:
    """What waits to be accepted, oldest first. A read without a transaction: it is asked every half second."""
    return list(Command.objects.filter(state=State.PENDING).order_by("id")[:100])


def accept(lease: Lease, command_id: int) -> bool:
    """Take a request on; `False` when it has expired or was answered meanwhile.

    One that is taken on already is ours, for a new owner of the lease closes those of the last: the connection was
    lost after the commit, and if the second try said no the request would be nobody's.
    """
    with lease.writing() as head:
        waiting = Command.objects.filter(pk=command_id, state=State.PENDING)
        expired = waiting.filter(expires_at__lte=head.now)
        if expired.update(state=State.EXPIRED, finished_at=head.now, result=_NOBODY):
            return False
        taken = waiting.update(state=State.ACCEPTED, accepted_at=head.now)
        return bool(taken) or Command.objects.filter(pk=command_id, state=State.ACCEPTED).exists()


_NOBODY = {"detail": "No daemon took this request on in time. Is `manage.py runsync` running?"}


def answer(lease: Lease, command_id: int, state: Command.State, result: dict[str, object]) -> None:
    """Say what came of an accepted request: `done` or `failed`."""
    with lease.writing() as head:
        Command.objects.filter(pk=command_id, state=State.ACCEPTED).update(
            state=state, result=result, finished_at=head.now
        )


def close_open_commands(lease: Lease) -> None:
    """What a dead daemon accepted and never answered has failed; what nobody took in time has expired."""
    with lease.writing() as head:
        Command.objects.filter(state=State.ACCEPTED).update(
            state=State.FAILED,
            finished_at=head.now,
            result={"detail": "The daemon that had accepted this stopped before it was done. Ask again."},
        )
        Command.objects.filter(Q(state=State.PENDING) & Q(expires_at__lte=head.now)).update(
            state=State.EXPIRED, finished_at=head.now, result=_NOBODY
        )


def request(action: Command.Action, *, by: str, reason: str = "", args: dict[str, object] | None = None) -> Command:
    """Write a request down for the daemon. The caller has checked that `by` may ask for it."""
    now = database_now()
    return Command.objects.create(
        action=action, args=args or {}, requested_by=by, reason=reason, requested_at=now, expires_at=now + EXPIRES_AFTER
    )
