"""Write audit rows. Only this module does."""

from typing import Any

from marketplace_sync.governance.actors import Actor
from marketplace_sync.logs import redact
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import AuditRow

Outcome = AuditRow.Outcome

_REFUSED_CHARS = 200


def record(
    actor: Actor,
    *,
    verb: str,
    outcome: AuditRow.Outcome,
    actual: str,
    required: str,
    target: str = "",
    reason: str = "",
    origin: str = "",
    details: dict[str, Any] | None = None,
    command_id: int | None = None,
) -> AuditRow:
    """Append one row. Texts are cut to the columns' lengths and never contain the marketplace's token (law 14).

    Of a refused action only `_REFUSED_CHARS` of each text are kept: its author has no right to fill the table.
    """
    refused = outcome is Outcome.REFUSED
    return AuditRow.objects.create(
        at=database_now(),
        actor=actor.ident[:255],
        actor_kind=actor.kind,
        verb=verb,
        target=_storable(target, _REFUSED_CHARS if refused else 255),
        reason=_storable(reason, _REFUSED_CHARS if refused else 1000),
        allowed=not refused,
        outcome=outcome,
        required=required,
        actual=actual,
        origin=_storable(origin, _REFUSED_CHARS if refused else 255),
        details=details or {},
        command_id=command_id,
    )


def _storable(text: str, most: int) -> str:
    """Return the text cut, redacted, and without characters that no database stores: a target may come from a URL."""
    whole = redact(text).replace("\0", "\ufffd")
    return whole.encode("utf-8", "replace").decode()[:most]
