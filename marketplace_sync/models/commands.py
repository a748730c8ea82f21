"""What people and agents ask of the daemon. A request is a row; the daemon accepts, does, answers (law 11)."""

from django.db import models
from django.db.models import Q


class Command(models.Model):
    """One request. It expires when no daemon has accepted it by `expires_at`.

    An actor has at most one open command per action and arguments. Asking again for the same sets `repeated_at` and
    returns the open one (`mirror.commands.request`).

    `result` is JSON for the asker: what was done, or why not (`{"detail": "..."}`).
    """

    class Action(models.TextChoices):
        RECONNECT = "reconnect"
        DISABLE = "disable"
        ENABLE = "enable"
        SYNC = "sync"
        APPROVE = "approve"  # args: {"run": id}
        DISMISS = "dismiss"  # args: {"run": id}
        REPLAY = "replay"  # args: {"dead_letter": id}, or {"dead_letters": [id, ...]}

    class State(models.TextChoices):
        PENDING = "pending"
        ACCEPTED = "accepted"
        DONE = "done"
        FAILED = "failed"
        EXPIRED = "expired"

    action = models.CharField(max_length=20, choices=Action.choices)
    args = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    result = models.JSONField(null=True, blank=True)
    reason = models.CharField(max_length=1000, blank=True, default="")
    requested_by = models.CharField(max_length=255)
    requested_at = models.DateTimeField()
    repeated_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                condition=(Q(state__in=("pending", "accepted")) & Q(finished_at__isnull=True))
                | (Q(state__in=("done", "failed", "expired")) & Q(finished_at__isnull=False)),
                name="command_finished_when_ended",
            ),
        )
        indexes = (
            # The daemon looks here every half second; the ended ones, nearly all, stay out.
            models.Index(fields=("id",), name="command_open", condition=Q(state__in=("pending", "accepted"))),
        )

    def __str__(self) -> str:
        # Without the state: titles that show this do not change while the page does.
        return f"request {self.pk}: {self.action}"
