"""Commands: rows in which people and agents have the daemon do something, and in which it answers (law 11)."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from django.db.models import Q

from marketplace_sync.engine.liveness import AHEAD_SECONDS, believable
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import Command, SyncRun

State = Command.State

# A command that no daemon has accepted by then is expired, so that its author learns of it.
EXPIRES_AFTER = timedelta(seconds=60)
_LONGEST_WAIT = EXPIRES_AFTER + timedelta(seconds=AHEAD_SECONDS)
# The most open commands that one actor may have.
MAX_OPEN_PER_ACTOR = 20
# The most commands of people that one query reads, before those of agents. At least `MAX_OPEN_PER_ACTOR`.
_MAX_OF_PERSONS = 100
_BY_AGENTS = Q(requested_by__startswith="agent:")
_OPEN = Q(state__in=(State.PENDING, State.ACCEPTED))


class TooManyOpenCommandsError(Exception):
    """The actor has `MAX_OPEN_PER_ACTOR` open commands; no further one was written."""


def submit_command(
    action: Command.Action, *, by: str, reason: str = "", args: dict[str, object] | None = None
) -> Command:
    """Write a command for the daemon, or return the open one of `by` with the same action and arguments.

    The caller has checked that `by` may have it executed, and makes sure that no other command of `by` is written
    meanwhile. Raises `TooManyOpenCommandsError`.
    """
    now = database_now()
    args = args or {}
    own = _open_commands_of(by, now)
    for command in own:
        if command.action == action and command.args == args and _repeat(command, now):
            return command
    if len(own) >= MAX_OPEN_PER_ACTOR:
        raise TooManyOpenCommandsError
    return Command.objects.create(
        action=action, args=args, requested_by=by, reason=reason, requested_at=now, expires_at=now + EXPIRES_AFTER
    )


def _open_commands_of(by: str, now: datetime) -> list[Command]:
    """Return the open commands of an actor. An expired one does not count, even if no daemon has marked it yet."""
    return list(Command.objects.filter(_OPEN, requested_by=by).exclude(_expired(now)).order_by("id"))


def _repeat(command: Command, now: datetime) -> bool:
    """Note that the command was submitted again; return `False` when it has ended meanwhile."""
    command.repeated_at, command.expires_at = now, now + EXPIRES_AFTER
    still_open = Command.objects.filter(_OPEN, pk=command.pk)
    return bool(still_open.update(repeated_at=command.repeated_at, expires_at=command.expires_at))


def pending_commands(agents: int) -> Sequence[Command]:
    """Return the commands that wait to be accepted: persons', then the first `agents` of agents; each oldest first.

    Reads without a transaction: the daemon calls this every half second.
    """
    pending = Command.objects.filter(state=State.PENDING).order_by("id")
    return [*pending.exclude(_BY_AGENTS)[:_MAX_OF_PERSONS], *pending.filter(_BY_AGENTS)[: max(agents, 0)]]


def is_by_agent(command: Command) -> bool:
    """Return whether an agent submitted the command."""
    return command.requested_by.startswith("agent:")


def accept(lease: Lease, command_id: int, refusal_reason: Callable[[Command], str]) -> bool:
    """Accept a command for execution; return `False` when it has expired or ended meanwhile.

    `refusal_reason` returns why the author has lost the right to the command, "" otherwise. A command without that
    right expires, and its result gives the reason.

    Also return `True` if the command is accepted already. Only this daemon can have accepted it, since a new owner of
    the lease ends the commands of the owner before. The connection was lost after that commit, and this is the retry:
    with `False` nobody would execute the command.
    """
    with lease.writing() as head:
        command = Command.objects.select_for_update().filter(_OPEN, pk=command_id).first()
        if command is None:
            return False
        if command.state == State.ACCEPTED:
            return True
        result = NO_DAEMON_RESULT if has_expired(command, head.now) else _rights_withdrawn(refusal_reason(command))
        if result is not None:
            command.state, command.finished_at, command.result = State.EXPIRED, head.now, result
        else:
            command.state, command.accepted_at = State.ACCEPTED, head.now
        command.save(update_fields=["state", "finished_at", "result", "accepted_at"])
        return result is None


def has_expired(command: Command, now: datetime) -> bool:
    """Return whether no daemon may accept `command` any more.

    A command that expires later than a command written now was written before the clock was set back. Its age is
    unknown, so it counts as expired.
    """
    return command.state == State.PENDING and not now < command.expires_at <= now + _LONGEST_WAIT


def _expired(now: datetime) -> Q:
    """Return `has_expired` as a condition."""
    return Q(state=State.PENDING) & ~Q(expires_at__gt=now, expires_at__lte=now + _LONGEST_WAIT)


NO_DAEMON_RESULT = {"detail": "No daemon accepted this command in time. Is `manage.py runsync` running?"}


def _rights_withdrawn(reason: str) -> dict[str, object] | None:
    return {"detail": reason, "code": "rights_withdrawn"} if reason else None


def answer(
    lease: Lease,
    command_id: int,
    state: Command.State,
    result: dict[str, object],
    *,
    after_run: int | None = None,
) -> bool:
    """Write the result of an accepted command, `done` or `failed`; return whether nothing is left to be done for it.

    `after_run`: the sync run that is the answer. If the actor submitted the command again after that run had begun,
    this writes nothing and returns `False`: a full sync that begins later has to follow (law 11).
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


def end_open_commands(lease: Lease) -> None:
    """Mark as failed what a dead daemon accepted and never answered, and as expired what no daemon accepted in time."""
    with lease.writing() as head:
        Command.objects.filter(state=State.ACCEPTED).update(
            state=State.FAILED,
            finished_at=head.now,
            result={"detail": "The daemon that accepted this command stopped before it was done. Send it again."},
        )
        Command.objects.filter(_expired(head.now)).update(
            state=State.EXPIRED, finished_at=head.now, result=NO_DAEMON_RESULT
        )


def expire_pending_commands(by: str, detail: str) -> list[int]:
    """Expire the commands of `by` that no daemon has accepted yet, because `by` lost the right; return their ids."""
    pending = Command.objects.filter(state=State.PENDING, requested_by=by)
    ids = list(pending.order_by("id").values_list("pk", flat=True))
    if ids:
        result = _rights_withdrawn(detail)
        pending.filter(pk__in=ids).update(state=State.EXPIRED, finished_at=database_now(), result=result)
    return ids
