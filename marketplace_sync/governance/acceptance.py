"""Whether a command may still be carried out when the daemon accepts it: its author may have lost the right since."""

from marketplace_sync.governance.actors import Actor, actor_named
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.errors import DeniedError
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.steering import REQUESTS
from marketplace_sync.models import Command

_BY_ACTION = {str(kind.asks): kind for kind in REQUESTS}


def objection(command: Command) -> str:
    """Return why the author of a command may not have it any more, "" when nothing speaks against it.

    The refusal is one audit row, written in the caller's transaction: the one that ends the command.
    """
    kind = _BY_ACTION.get(command.action)
    if kind is None:
        return ""  # a newer release wrote it; the daemon answers that it does not know this action
    who = command.requested_by
    author = actor_named(who)
    try:
        kind.demand_of(author)
    except DeniedError as denial:
        record(
            author or _gone(who),
            verb=kind.verb,
            outcome=Outcome.REFUSED,
            actual=author.maturity if author else "",
            required=denial.required,
            reason=command.reason,
            origin="daemon",
            details={"why": "the right was withdrawn before a daemon accepted the command"},
            command_id=command.pk,
        )
        standing = f"it is {author.maturity} now" if author else "it was disabled or deleted"
        return f"{who} may not do this any more: {standing}."
    return ""


def _gone(ident: str) -> Actor:
    """Return somebody for the audit to name who is no actor any more."""
    kind = "agent" if ident.startswith("agent:") else "person"
    return Actor(kind=kind, ident=ident, maturity=Maturity.STUDENT, is_superuser=False, user_pk=None)  # type: ignore[arg-type]
