"""All management actions that API and admin offer, and which of them an actor may perform."""

from typing import Any

from marketplace_sync.governance.action import MAX_REASON_CHARS, Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.agents import DisableAgent, EnableAgent, RegisterAgent, SetMaturity
from marketplace_sync.governance.commands import CommandAction, Disable, Enable, Reconnect, SyncNow
from marketplace_sync.governance.dead_letters import DiscardDeadLetter, ReplayDeadLetter, ReplayDeadLetters
from marketplace_sync.governance.errors import DeniedError
from marketplace_sync.governance.keys import IssuedKey, IssueKey, RevokeKey, RotateKey
from marketplace_sync.governance.removals import ApproveRemoval, DismissRemoval

__all__ = [
    "ACTIONS",
    "COMMAND_ACTIONS",
    "MAX_REASON_CHARS",
    "Action",
    "ApproveRemoval",
    "CommandAction",
    "Disable",
    "DisableAgent",
    "DiscardDeadLetter",
    "DismissRemoval",
    "Enable",
    "EnableAgent",
    "IssueKey",
    "IssuedKey",
    "Reconnect",
    "RegisterAgent",
    "ReplayDeadLetter",
    "ReplayDeadLetters",
    "RevokeKey",
    "RotateKey",
    "SetMaturity",
    "SyncNow",
    "may",
]

# One for each `Command.Action`.
COMMAND_ACTIONS: tuple[type[CommandAction], ...] = (
    Reconnect,
    Disable,
    Enable,
    SyncNow,
    ApproveRemoval,
    DismissRemoval,
    ReplayDeadLetter,
)
# `ArchiveAudit` is not among them: no page and no API deletes audit rows.
ACTIONS: tuple[type[Action[Any]], ...] = (
    *COMMAND_ACTIONS,
    ReplayDeadLetters,
    DiscardDeadLetter,
    RegisterAgent,
    SetMaturity,
    DisableAgent,
    EnableAgent,
    IssueKey,
    RevokeKey,
    RotateKey,
)


def may(actor: Actor | None, action: type[Action[Any]]) -> bool:
    """Return whether the policy allows the action to the actor. For showing buttons; the action itself checks again."""
    try:
        action.check_right(actor)
    except DeniedError:
        return False
    return True
