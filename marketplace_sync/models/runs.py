"""Full passes over the marketplace's listing, the removals that one held back, and those that somebody dismissed."""

from django.db import models
from django.db.models import Q

from marketplace_sync.protocol.limits import MAX_ID_CHARS
from marketplace_sync.visible import visible


class SyncRun(models.Model):
    """One full pass: why it was begun, how far it is, what it found and did.

    `is_clean` says whether what it did not find counts as absent (law 5); `None` while it runs or when
    it failed, and then `unclean_reason` is "". `held_count` removals wait for approval in a `held` run.
    `refused` counts the listed records that could not be read, `refused_categories` those of them that are categories.
    `by_row`: it compared every listed skill with the stored row itself, and not with a fingerprint (law 16).
    """

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        DEGRADED = "degraded"  # ended, but some listed records were refused: the mirror does not have what they say
        FAILED = "failed"
        HELD = "held"  # waits for a person: its removals were not done
        APPROVED = "approved"  # was held; its removals have been let go ahead
        DISMISSED = "dismissed"  # was held; its skills are kept
        SUPERSEDED = "superseded"  # was held; a newer pass has looked again
        INTERRUPTED = "interrupted"  # the daemon stopped or died under it

    reason = models.CharField(max_length=20)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING)
    epoch = models.BigIntegerField(default=0)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    pages_done = models.PositiveIntegerField(default=0)
    pages_total = models.PositiveIntegerField(null=True)
    listed = models.PositiveIntegerField(default=0)
    created = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    stale = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    removed = models.PositiveIntegerField(default=0)
    held_count = models.PositiveIntegerField(default=0)
    is_clean = models.BooleanField(null=True)
    unclean_reason = models.CharField(max_length=500, blank=True, default="")
    held_reason = models.CharField(max_length=500, blank=True, default="")
    error = models.CharField(max_length=500, blank=True, default="")
    listed_categories = models.PositiveIntegerField(default=0, db_default=0)
    refused_categories = models.PositiveIntegerField(default=0, db_default=0)
    by_row = models.BooleanField(default=False, db_default=False)

    class Meta:
        ordering = ("-id",)
        constraints = (
            # Passes never overlap: one writer, one pass at a time.
            models.UniqueConstraint(fields=("state",), condition=Q(state="running"), name="run_one_running"),
            models.CheckConstraint(
                condition=Q(state="running", finished_at__isnull=True)
                | (~Q(state="running") & Q(finished_at__isnull=False)),
                name="run_finished_unless_running",
            ),
        )
        indexes = (models.Index(fields=("state", "-id"), name="run_by_state"),)

    def __str__(self) -> str:
        # Without the state: titles that show this do not change while the page does.
        return visible(f"run {self.pk} ({self.reason})")

    @property
    def degraded(self) -> bool:
        """Some listed records could not be read, whatever its state is for."""
        return self.refused > 0

    @property
    def refused_share(self) -> float:
        """The part of the listed skills, or of the categories if that is larger, that could not be read: 0.0 to 1.0."""
        read = self.created + self.updated + self.unchanged + self.stale
        skills = self.refused - self.refused_categories
        shares = ((skills, read + skills), (self.refused_categories, self.listed_categories))
        return max(refused / listed if refused else 0.0 for refused, listed in shares)


class HeldRemoval(models.Model):
    """A skill that a held run would have removed."""

    run = models.ForeignKey(SyncRun, on_delete=models.CASCADE, related_name="held_removals")
    skill_id = models.CharField(max_length=MAX_ID_CHARS)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("run", "skill_id"), name="held_once_a_run"),)

    def __str__(self) -> str:
        return visible(self.skill_id)


class DismissedRemoval(models.Model):
    """A skill that is kept although the marketplace does not list it: somebody dismissed its removal.

    It does not count as missing until it is listed again, or its removal is approved; then this row goes. `run_id` is
    the run whose removals were dismissed; it is no foreign key, since a run is forgotten earlier.
    """

    skill_id = models.CharField(max_length=MAX_ID_CHARS, unique=True)
    run_id = models.BigIntegerField()
    dismissed_at = models.DateTimeField()
    dismissed_by = models.CharField(max_length=255)

    def __str__(self) -> str:
        return visible(self.skill_id)
