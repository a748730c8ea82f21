"""Actions that the daemon executes: each writes a command, and the daemon answers in its row (law 11)."""

from typing import ClassVar

from marketplace_sync.governance.action import Action
from marketplace_sync.governance.errors import TooManyRequestsError
from marketplace_sync.logs import redact
from marketplace_sync.mirror.commands import (
    EXPIRES_AFTER,
    MAX_OPEN_PER_ACTOR,
    TooManyOpenCommandsError,
    submit_command,
)
from marketplace_sync.models import Command


class CommandAction(Action[Command]):
    """An action that the daemon executes; its result is the command.

    An actor who performs the same action again gets the command that is open already. Whether a daemon runs, and
    whether the stream can do it, is for the daemon's answer.
    """

    command: ClassVar[Command.Action]

    def execute(self) -> Command:
        args = self.args()
        try:
            submitted = submit_command(self.command, by=self.actor.ident, reason=redact(self.reason)[:1000], args=args)
        except TooManyOpenCommandsError:
            raise TooManyRequestsError(
                f"You have {MAX_OPEN_PER_ACTOR} open commands; wait until some of them have ended.",
                "too_many_commands",
                EXPIRES_AFTER.total_seconds() / 12,
            ) from None
        self.command_id = submitted.pk
        return submitted

    def args(self) -> dict[str, object]:
        """Return the arguments of the command. Raises `NotPossibleError` or `NoSuchTargetError`."""
        return {}


class Reconnect(CommandAction):
    """Open a new stream immediately, with the counters at 0."""

    verb, label, command = "reconnect", "Reconnect stream", Command.Action.RECONNECT


class Disable(CommandAction):
    """Close the stream and keep it closed, over restarts too; polling goes on."""

    verb, label, command = "disable", "Disable stream", Command.Action.DISABLE


class Enable(CommandAction):
    """Open the stream, and open it again at every start."""

    verb, label, command = "enable", "Enable stream", Command.Action.ENABLE


class SyncNow(CommandAction):
    """Start a full sync that begins after this action."""

    verb, label, command = "sync", "Sync now", Command.Action.SYNC
