"""Steering the mirror: what the daemon is asked to do, and the one thing that needs no daemon."""

from collections.abc import Sequence
from typing import ClassVar

from django.conf import settings

from marketplace_sync.conf import ConfigError, load_config
from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.errors import (
    HeldChangedError,
    InvalidInputError,
    NoSuchTargetError,
    NotPossibleError,
    PersonRequiredError,
    TooManyRequestsError,
)
from marketplace_sync.logs import redact
from marketplace_sync.mirror.commands import EXPIRES_AFTER, MAX_OPEN_PER_ACTOR, TooManyOpenError, request
from marketplace_sync.mirror.removals import why_closed
from marketplace_sync.models import Command, DeadLetter, SyncRun

# Dead letters that one command may name.
MAX_REPLAYED_TOGETHER = 500


class CommandAction(Action[Command]):
    """Something that the daemon does: the result is the command row in which it will answer (law 11).

    An actor who asks for the same again gets the row that is open already.

    Whether a daemon runs, and whether the stream can do it, is for that answer to say.
    """

    asks: ClassVar[Command.Action]

    def execute(self) -> Command:
        args = self.args()
        try:
            command = request(self.asks, by=self.actor.ident, reason=redact(self.reason)[:1000], args=args)
        except TooManyOpenError:
            raise TooManyRequestsError(
                f"You have {MAX_OPEN_PER_ACTOR} open commands; wait until some of them have ended.",
                "too_many_commands",
                EXPIRES_AFTER.total_seconds() / 12,
            ) from None
        self.command_id = command.pk
        return command

    def args(self) -> dict[str, object]:
        """Return the arguments of the command. Raises `NotPossibleError` or `NoSuchTargetError`."""
        return {}


class Reconnect(CommandAction):
    """Open a new stream at once, with the counters at 0."""

    verb, label, asks = "reconnect", "Reconnect", Command.Action.RECONNECT


class Disable(CommandAction):
    """Close the stream and keep it closed, over restarts too; polling goes on."""

    verb, label, asks = "disable", "Disable", Command.Action.DISABLE


class Enable(CommandAction):
    """Want the stream again."""

    verb, label, asks = "enable", "Enable", Command.Action.ENABLE


class SyncNow(CommandAction):
    """A full pass, begun after this."""

    verb, label, asks = "sync", "Sync now", Command.Action.SYNC


class _RunTarget:
    """A run whose removals are still to be decided on."""

    run_id: int

    @property
    def target(self) -> str:
        return f"run {self.run_id}"

    def open_run(self) -> SyncRun:
        """Return the run. Raises `NoSuchTargetError`, and `NotPossibleError` when nothing of it waits any more."""
        run = SyncRun.objects.filter(pk=self.run_id).first()
        if run is None:
            raise NoSuchTargetError(f"There is no run {self.run_id}.")
        if problem := why_closed(run):
            raise NotPossibleError(problem)
        return run


class ApproveRemoval(_RunTarget, CommandAction):
    """Delete the skills that a run lists as missing and that are missing still.

    The approver has seen them: `held_count` is how many, and a reason is required. Nobody else than a person may,
    unless the setting APPROVALS_BY_AGENTS is true. Both are judged once the policy has let the actor in, so a bad
    `held_count` raises `InvalidInputError` from `perform`.
    """

    verb, label, asks = "approve_removal", "Approve removals", Command.Action.APPROVE

    def __init__(
        self, run_id: int, held_count: object = None, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.run_id = run_id
        self.held_count = held_count

    @classmethod
    def demand_of(cls, actor: Actor | None) -> None:
        super().demand_of(actor)
        if actor is not None and actor.kind == "agent" and not agents_may_approve():
            raise PersonRequiredError

    def args(self) -> dict[str, object]:
        if not isinstance(self.held_count, int) or isinstance(self.held_count, bool) or self.held_count < 0:
            raise InvalidInputError("held_count", "Required: the number of removals that you have seen this run hold.")
        if not self.reason:
            raise InvalidInputError("reason", "Required: why these skills may be deleted.")
        run = self.open_run()
        self.details = {"held": run.held_count, "seen": self.held_count}
        if run.held_count != self.held_count:
            raise HeldChangedError(
                f"Run {run.pk} holds {run.held_count} removals, not {self.held_count}. Review it again."
            )
        return {"run": run.pk}


def agents_may_approve() -> bool:
    """Return the setting APPROVALS_BY_AGENTS; false where the settings can't be read."""
    try:
        return load_config(settings).approvals_by_agents
    except ConfigError:
        return False


class DismissRemoval(_RunTarget, CommandAction):
    """Keep the skills that a run lists as missing, until they are listed again or their removal is approved."""

    verb, label, asks = "dismiss_removal", "Keep these skills", Command.Action.DISMISS

    def __init__(self, run_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.run_id = run_id

    def args(self) -> dict[str, object]:
        run = self.open_run()
        if run.state == SyncRun.State.DISMISSED:
            raise NotPossibleError(f"The removals of run {run.pk} were dismissed already.")
        self.details = {"held": run.held_count}
        return {"run": run.pk}


class _DeadLetterTarget:
    """A dead letter that is still open."""

    dead_letter_id: int

    @property
    def target(self) -> str:
        return f"dead letter {self.dead_letter_id}"

    def open_dead_letter(self) -> DeadLetter:
        letter = DeadLetter.objects.select_for_update().filter(pk=self.dead_letter_id).first()
        if letter is None:
            raise NoSuchTargetError(f"There is no dead letter {self.dead_letter_id}.")
        if letter.state != DeadLetter.State.OPEN:
            raise NotPossibleError(f"Dead letter {letter.pk} is {letter.state} already.")
        return letter


class ReplayDeadLetter(_DeadLetterTarget, CommandAction):
    """Apply once more what was refused."""

    verb, label, asks = "replay_dead_letter", "Replay", Command.Action.REPLAY

    def __init__(self, dead_letter_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.dead_letter_id = dead_letter_id

    def args(self) -> dict[str, object]:
        letter = self.open_dead_letter()
        self.details = {"code": letter.code, "key": letter.key}
        return {"dead_letter": letter.pk}


class ReplayDeadLetters(CommandAction):
    """Apply once more all of these that are open, by one command."""

    verb, label, asks = "replay_dead_letters", "Replay many", Command.Action.REPLAY

    def __init__(self, dead_letter_ids: Sequence[int], *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        if len(dead_letter_ids) > MAX_REPLAYED_TOGETHER:
            raise InvalidInputError("dead_letters", f"At most {MAX_REPLAYED_TOGETHER} at once.")
        self.dead_letter_ids = dead_letter_ids

    @property
    def target(self) -> str:
        return f"{len(self.dead_letter_ids)} dead letters"

    def args(self) -> dict[str, object]:
        some = DeadLetter.objects.filter(pk__in=self.dead_letter_ids, state=DeadLetter.State.OPEN)
        ids = list(some.order_by("pk").values_list("pk", flat=True))
        if not ids:
            raise NotPossibleError("None of these dead letters is open any more.")
        self.details = {"dead_letters": ids}
        return {"dead_letters": ids}


class DiscardDeadLetter(_DeadLetterTarget, Action[DeadLetter]):
    """Put a dead letter aside for good: when the same comes again it is counted, and stays put aside."""

    verb, label = "discard_dead_letter", "Discard"

    def __init__(self, dead_letter_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.dead_letter_id = dead_letter_id

    def execute(self) -> DeadLetter:
        letter = self.open_dead_letter()
        self.details = {"code": letter.code, "key": letter.key}
        letter.state = DeadLetter.State.DISCARDED
        letter.save(update_fields=["state"])
        return letter


# One for each action of a command.
REQUESTS: tuple[type[CommandAction], ...] = (
    Reconnect,
    Disable,
    Enable,
    SyncNow,
    ApproveRemoval,
    DismissRemoval,
    ReplayDeadLetter,
)
