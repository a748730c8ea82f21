"""All management actions that the doors offer, and who may see their buttons."""

from typing import Any

from marketplace_sync.governance.action import MAX_REASON_CHARS, Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.agents import DisableAgent, EnableAgent, RegisterAgent, SetMaturity
from marketplace_sync.governance.errors import DeniedError
from marketplace_sync.governance.keys import IssuedKey, IssueKey, RevokeKey, RotateKey
from marketplace_sync.governance.steering import (
    REQUESTS,
    ApproveRemoval,
    Disable,
    DiscardDeadLetter,
    DismissRemoval,
    Enable,
    Reconnect,
    ReplayDeadLetter,
    ReplayDeadLetters,
    SyncNow,
)

__all__ = [
    "ACTIONS",
    "MAX_REASON_CHARS",
    "Action",
    "ApproveRemoval",
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

# The archive of the audit is not among them: no page and no API deletes from it.
ACTIONS: tuple[type[Action[Any]], ...] = (
    *REQUESTS,
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
    """Would the policy let `actor` do this? For showing buttons; the action decides anew."""
    try:
        action.demand_of(actor)
    except DeniedError:
        return False
    return True
