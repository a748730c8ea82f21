"""Decisions about removals on hold: approve them, or keep the skills (law 5)."""

from django.conf import settings

from marketplace_sync.conf import ConfigError, load_config
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.commands import CommandAction
from marketplace_sync.governance.errors import (
    HeldChangedError,
    InvalidInputError,
    NoSuchTargetError,
    NotPossibleError,
    PersonRequiredError,
)
from marketplace_sync.mirror.removals import why_closed
from marketplace_sync.models import Command, SyncRun


class _RunAction(CommandAction):
    """An action on a sync run whose removals are undecided."""

    def __init__(self, run_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.run_id = run_id

    @property
    def target(self) -> str:
        return f"run {self.run_id}"

    def open_run(self) -> SyncRun:
        """Return the sync run. Raises `NoSuchTargetError`, and `NotPossibleError` when nothing of it is undecided."""
        run = SyncRun.objects.filter(pk=self.run_id).first()
        if run is None:
            raise NoSuchTargetError(f"There is no sync run {self.run_id}.")
        if problem := why_closed(run):
            raise NotPossibleError(problem)
        return run


class ApproveRemoval(_RunAction):
    """Delete the skills that a sync run did not find and that are still missing.

    The approver has seen them: `held_count` is how many, and a reason is required. Only a person may approve, unless
    the setting APPROVALS_BY_AGENTS is true. `perform` checks both after the policy has let the actor in; a bad
    `held_count` raises `InvalidInputError`.
    """

    verb, label, command = "approve_removal", "Approve removals", Command.Action.APPROVE

    def __init__(
        self, run_id: int, held_count: object = None, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(run_id, actor=actor, reason=reason, origin=origin)
        self.held_count = held_count

    @classmethod
    def check_right(cls, actor: Actor | None) -> None:
        super().check_right(actor)
        if actor is not None and actor.kind == "agent" and not agents_may_approve():
            raise PersonRequiredError

    def args(self) -> dict[str, object]:
        if not isinstance(self.held_count, int) or isinstance(self.held_count, bool) or self.held_count < 0:
            raise InvalidInputError("held_count", "Required: how many removals of this sync run you have reviewed.")
        if not self.reason:
            raise InvalidInputError("reason", "Required: why these skills may be deleted.")
        run = self.open_run()
        self.details = {"held": run.held_count, "seen": self.held_count}
        if run.held_count != self.held_count:
            raise HeldChangedError(
                f"Sync run {run.pk} has {run.held_count} removals on hold, not {self.held_count}. Review it again."
            )
        return {"run": run.pk}


def agents_may_approve() -> bool:
    """Return the setting APPROVALS_BY_AGENTS; `False` where the settings cannot be read."""
    try:
        return load_config(settings).approvals_by_agents
    except ConfigError:
        return False


class DismissRemoval(_RunAction):
    """Keep the skills that a sync run did not find, until they are listed again or their removal is approved."""

    verb, label, command = "dismiss_removal", "Keep these skills", Command.Action.DISMISS

    def args(self) -> dict[str, object]:
        run = self.open_run()
        if run.state == SyncRun.State.DISMISSED:
            raise NotPossibleError(f"The removals of sync run {run.pk} were dismissed already.")
        self.details = {"held": run.held_count}
        return {"run": run.pk}
