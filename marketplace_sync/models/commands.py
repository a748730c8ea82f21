"""Commands: what the daemon executes for people and agents. It accepts each row, executes it and answers (law 11)."""

from django.db import models
from django.db.models import Q


class Command(models.Model):
    """One command. It expires when no daemon has accepted it by `expires_at`.

    An actor has at most one open command per action and arguments. Submitting the same again sets `repeated_at` and
    returns the open one (`mirror.commands.submit_command`).

    `result` is JSON for the author: what was done, or why not (`{"detail": "..."}`).
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
            # The daemon reads this every half second; ended commands, nearly all, are not in the index.
            models.Index(fields=("id",), name="command_open", condition=Q(state__in=("pending", "accepted"))),
        )

    def __str__(self) -> str:
        # Without the state: the page updates itself, but its title does not.
        return f"command {self.pk}: {self.action}"
