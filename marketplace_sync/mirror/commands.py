"""Requests of people and agents, as the daemon sees them: open, accepted, answered, expired (law 11)."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from django.db.models import Q

from marketplace_sync.engine.liveness import AHEAD_SECONDS, believable
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import Command, SyncRun

State = Command.State

# A request that no daemon has accepted for this long is expired: who asked wants to hear so.
EXPIRES_AFTER = timedelta(seconds=60)
_LONGEST_WAIT = EXPIRES_AFTER + timedelta(seconds=AHEAD_SECONDS)
# Open commands per actor (INTERFACE.md, HTTP API).
MAX_OPEN_PER_ACTOR = 20
# Persons' commands read per look. They come before those of agents, and are never fewer than one person may have.
_MAX_OF_PERSONS = 100
_OF_AGENTS = Q(requested_by__startswith="agent:")
_OPEN = Q(state__in=(State.PENDING, State.ACCEPTED))


class TooManyOpenError(Exception):
    """The actor has `MAX_OPEN_PER_ACTOR` open commands; no further one was written."""


def open_commands(agents: int) -> Sequence[Command]:
    """Return what waits to be accepted: persons' commands, then the first `agents` of agents; each oldest first.

    A read without a transaction: it is done every half second.
    """
    pending = Command.objects.filter(state=State.PENDING).order_by("id")
    return [*pending.exclude(_OF_AGENTS)[:_MAX_OF_PERSONS], *pending.filter(_OF_AGENTS)[: max(agents, 0)]]


def is_of_agent(command: Command) -> bool:
    """Return whether an agent asked for it."""
    return command.requested_by.startswith("agent:")


def accept(lease: Lease, command_id: int, objection: Callable[[Command], str]) -> bool:
    """Take a request on; `False` when it has expired or was answered meanwhile.

    `objection` returns why its author may not have it any more, "" otherwise; such a request expires for that reason.

    One that is taken on already is ours, for a new owner of the lease closes those of the last: the connection was
    lost after the commit, and if the second try said no the request would be nobody's.
    """
    with lease.writing() as head:
        command = Command.objects.select_for_update().filter(_OPEN, pk=command_id).first()
        if command is None:
            return False
        if command.state == State.ACCEPTED:
            return True
        result = _NOBODY if has_expired(command, head.now) else _withdrawn(objection(command))
        if result is not None:
            command.state, command.finished_at, command.result = State.EXPIRED, head.now, result
        else:
            command.state, command.accepted_at = State.ACCEPTED, head.now
        command.save(update_fields=["state", "finished_at", "result", "accepted_at"])
        return result is None


def has_expired(command: Command, now: datetime) -> bool:
    """Return whether no daemon may accept `command` any more.

    One whose time ends later than that of a command written now is from before the clock was put back: it expired at a
    moment that nobody knows.
    """
    return command.state == State.PENDING and not now < command.expires_at <= now + _LONGEST_WAIT


def _expired(now: datetime) -> Q:
    """The same, as a condition."""
    return Q(state=State.PENDING) & ~Q(expires_at__gt=now, expires_at__lte=now + _LONGEST_WAIT)


_NOBODY = {"detail": "No daemon took this request on in time. Is `manage.py runsync` running?"}


def _withdrawn(reason: str) -> dict[str, object] | None:
    return {"detail": reason, "code": "rights_withdrawn"} if reason else None


def answer(
    lease: Lease,
    command_id: int,
    state: Command.State,
    result: dict[str, object],
    *,
    after_run: int | None = None,
) -> bool:
    """Write what came of an accepted request: `done` or `failed`; whether nothing is left to be done for it.

    `after_run`: the sync run that is its answer. Nothing is written, and `False` returned, when the actor asked again
    after that run had begun: a full sync that begins later has to follow (law 11).
    """
    with lease.writing() as head:
        accepted = Command.objects.select_for_update().filter(pk=command_id, state=State.ACCEPTED).first()
        if accepted is None:
            return True
        runs = SyncRun.objects.none() if after_run is None else SyncRun.objects.filter(pk=after_run)
        begun = runs.values_list("started_at", flat=True).first()
        repeated = believable(accepted.repeated_at, head.now)
        if begun is not None and repeated is not None and repeated > begun:
            return False
        Command.objects.filter(pk=command_id).update(state=state, result=result, finished_at=head.now)
        return True


def close_open_commands(lease: Lease) -> None:
    """What a dead daemon accepted and never answered has failed; what nobody took in time has expired."""
    with lease.writing() as head:
        Command.objects.filter(state=State.ACCEPTED).update(
            state=State.FAILED,
            finished_at=head.now,
            result={"detail": "The daemon that had accepted this stopped before it was done. Ask again."},
        )
        Command.objects.filter(_expired(head.now)).update(state=State.EXPIRED, finished_at=head.now, result=_NOBODY)


def request(action: Command.Action, *, by: str, reason: str = "", args: dict[str, object] | None = None) -> Command:
    """Write a request down for the daemon, or return the open one of `by` that asks for the same.

    The caller has checked that `by` may ask for it, and makes sure that no other request of `by` is written meanwhile.
    Raises `TooManyOpenError`.
    """
    now = database_now()
    args = args or {}
    mine = _open_of(by, now)
    for command in mine:
        if command.action == action and command.args == args and _repeat(command, now):
            return command
    if len(mine) >= MAX_OPEN_PER_ACTOR:
        raise TooManyOpenError
    return Command.objects.create(
        action=action, args=args, requested_by=by, reason=reason, requested_at=now, expires_at=now + EXPIRES_AFTER
    )


def _open_of(by: str, now: datetime) -> list[Command]:
    """The open commands of an actor; one past its time is not, though no daemon was there to write so."""
    return list(Command.objects.filter(_OPEN, requested_by=by).exclude(_expired(now)).order_by("id"))


def _repeat(command: Command, now: datetime) -> bool:
    """Note that it was asked for again; `False` when it has ended meanwhile."""
    command.repeated_at, command.expires_at = now, now + EXPIRES_AFTER
    open_still = Command.objects.filter(_OPEN, pk=command.pk)
    return bool(open_still.update(repeated_at=command.repeated_at, expires_at=command.expires_at))


def expire_pending(by: str, detail: str) -> list[int]:
    """End what `by` asked for and no daemon has taken on yet, for its rights were taken away; the commands' ids."""
    pending = Command.objects.filter(state=State.PENDING, requested_by=by)
    ids = list(pending.order_by("id").values_list("pk", flat=True))
    if ids:
        pending.filter(pk__in=ids).update(state=State.EXPIRED, finished_at=database_now(), result=_withdrawn(detail))
    return ids
