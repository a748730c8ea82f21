"""Every management decision, allowed or refused. The database itself refuses to change or forget a row.

Triggers (migrations 0002, 0015; on both databases) refuse UPDATE always, and DELETE and TRUNCATE unless the gate,
a table of one row that no model knows, lets them through: `up_to` is the last id that may go, 0 for none. It is
opened and closed within one transaction, so no other connection ever sees it open, and a crash closes it. Who
opens it: `governance.archive`, for rows that are safely in a file, and the flush of a test run.
"""

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from marketplace_sync.visible import visible

_GATE = "marketplace_sync_auditgate"
# Statements, `OPEN_GATE` with the last id that may go as its parameter.
OPEN_GATE = f"UPDATE {_GATE} SET up_to = %s WHERE id = 1"
CLOSE_GATE = f"UPDATE {_GATE} SET up_to = 0 WHERE id = 1"
# With the gate open this far also TRUNCATE passes.
GATE_WIDE_OPEN = 2**63 - 1


class AuditRow(models.Model):
    """Who wanted what done to what, why and from where, and what came of it.

    `allowed` is the policy's word; `outcome` says more: what was allowed may have been `not_possible`.
    `required` is a maturity or `SUPERUSER`, `actual` the actor's maturity ("": it had ceased to be one).
    `command_id` names the row in which the daemon answers; that one is forgotten earlier than this.
    """

    class Outcome(models.TextChoices):
        PERFORMED = "performed"
        REFUSED = "refused"
        NOT_POSSIBLE = "not_possible"

    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=255)
    actor_kind = models.CharField(max_length=10)
    verb = models.CharField(max_length=40)
    target = models.CharField(max_length=255, blank=True, default="")
    reason = models.CharField(max_length=1000, blank=True, default="")
    allowed = models.BooleanField()
    outcome = models.CharField(max_length=12, choices=Outcome.choices)
    required = models.CharField(max_length=20, blank=True, default="")
    actual = models.CharField(max_length=20, blank=True, default="")
    origin = models.CharField(max_length=255, blank=True, default="")
    details = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    command_id = models.BigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        verbose_name = "audit row"
        default_permissions = ("view",)
        constraints = (
            # What was done or could not be done was allowed, and what was refused was not.
            models.CheckConstraint(
                condition=(models.Q(allowed=True) & ~models.Q(outcome="refused"))
                | models.Q(allowed=False, outcome="refused"),
                name="audit_allowed_unless_refused",
            ),
        )
        indexes = (
            models.Index(fields=("actor", "-id"), name="audit_by_actor"),
            models.Index(fields=("verb", "-id"), name="audit_by_verb"),
        )

    def __str__(self) -> str:
        return visible(f"{self.actor}: {self.verb} {self.target} {self.outcome}".replace("  ", " "))
