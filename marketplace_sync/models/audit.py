"""The audit: every management decision, allowed or refused. The database itself refuses to change or delete a row.

Triggers (migrations 0002 and 0015, on both databases) always refuse UPDATE. They refuse DELETE and TRUNCATE unless the
gate is open: a table of one row, without a model, whose `up_to` is the last id that may be deleted, 0 for none. The
gate is opened and closed within one transaction, so no other connection ever sees it open, and a crash closes it.
`governance.archive` opens it for rows that are in a file, and so does the flush of a test run.
"""

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from marketplace_sync.visible import visible

_GATE = "marketplace_sync_auditgate"
# SQL statements. The parameter of `OPEN_GATE` is the last id that may be deleted.
OPEN_GATE = f"UPDATE {_GATE} SET up_to = %s WHERE id = 1"
CLOSE_GATE = f"UPDATE {_GATE} SET up_to = 0 WHERE id = 1"
# With this value the gate lets TRUNCATE through too.
GATE_WIDE_OPEN = 2**63 - 1


class AuditRow(models.Model):
    """One decision: actor, action (`verb`), target, reason, origin and outcome.

    `allowed` is the policy's decision; an action that was allowed may still have the `outcome` `not_possible`.
    `required` is a maturity or `SUPERUSER`; `actual` is the actor's maturity, "" if it was no actor any more.
    `command_id` is the command in which the daemon answers; it is deleted earlier than this row.
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
        verbose_name_plural = "audit log"  # the title of the admin's list
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
        return visible(f"audit row {self.pk}: {self.actor} {self.verb} {self.target} {self.outcome}".replace("  ", " "))
