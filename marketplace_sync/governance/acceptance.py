"""Check a command's author again when the daemon accepts it: the right may have been withdrawn since."""

from marketplace_sync.governance.actions import COMMAND_ACTIONS
from marketplace_sync.governance.actors import Actor, find_actor
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.errors import DeniedError
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import Command

_BY_COMMAND = {str(action.command): action for action in COMMAND_ACTIONS}


def refusal_reason(command: Command) -> str:
    """Return why the author of a command has lost the right to it, "" when it may be executed.

    A refusal writes one audit row, in the caller's transaction: the one that ends the command.
    """
    action = _BY_COMMAND.get(command.action)
    if action is None:
        return ""  # a newer release wrote it; the daemon answers that it does not know this action
    ident = command.requested_by
    author = find_actor(ident)
    try:
        action.check_right(author)
    except DeniedError as denial:
        record(
            author or _former_actor(ident),
            verb=action.verb,
            outcome=Outcome.REFUSED,
            actual=author.maturity if author else "",
            required=denial.required,
            reason=command.reason,
            origin="daemon",
            details={"why": "the right was withdrawn before a daemon accepted the command"},
            command_id=command.pk,
        )
        now = f"it is {author.maturity} now" if author else "it was disabled or deleted"
        return f"{ident} may not do this any more: {now}."
    return ""


def _former_actor(ident: str) -> Actor:
    """Return an actor for the audit row of somebody who is no actor any more."""
    kind = "agent" if ident.startswith("agent:") else "person"
    return Actor(kind=kind, ident=ident, maturity=Maturity.STUDENT, is_superuser=False, user_pk=None)  # type: ignore[arg-type]
