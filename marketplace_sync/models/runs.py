"""Sync runs, removals on hold, and dismissed removals."""

from django.db import models
from django.db.models import Q

from marketplace_sync.protocol.limits import MAX_ID_CHARS
from marketplace_sync.visible import visible


class SyncRun(models.Model):
    """One full sync: why it began, how far it is, what it found and did.

    `is_clean`: skills that it did not find count as absent (law 5); `None` while it runs and when it failed, and
    `unclean_reason` is "" then. `held_count` removals are on hold while the state is `held`.
    `refused` counts the listed records that could not be read; `refused_categories` of them are categories.
    `by_row`: it compared every listed skill with the stored row itself, and not with a fingerprint (law 16).
    """

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        DEGRADED = "degraded"  # ended, but some listed records were refused, so the mirror misses their changes
        FAILED = "failed"
        HELD = "held"  # its removals are on hold until a person decides
        APPROVED = "approved"  # was `held`; its removals were approved and made
        DISMISSED = "dismissed"  # was `held`; its skills are kept
        SUPERSEDED = "superseded"  # was `held`; a newer full sync has replaced it
        INTERRUPTED = "interrupted"  # the daemon stopped or died meanwhile

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
            # Full syncs never overlap: one writer, one full sync at a time.
            models.UniqueConstraint(fields=("state",), condition=Q(state="running"), name="run_one_running"),
            models.CheckConstraint(
                condition=Q(state="running", finished_at__isnull=True)
                | (~Q(state="running") & Q(finished_at__isnull=False)),
                name="run_finished_unless_running",
            ),
        )
        indexes = (models.Index(fields=("state", "-id"), name="run_by_state"),)

    def __str__(self) -> str:
        # Without the state: the page updates itself, but its title does not.
        return visible(f"sync run {self.pk} ({self.reason})")

    @property
    def degraded(self) -> bool:
        """Return whether some listed records could not be read. A run in any state may be degraded."""
        return self.refused > 0

    @property
    def refused_share(self) -> float:
        """Return the larger share, 0.0 to 1.0, of listed skills and of listed categories that could not be read."""
        read = self.created + self.updated + self.unchanged + self.stale
        skills = self.refused - self.refused_categories
        shares = ((skills, read + skills), (self.refused_categories, self.listed_categories))
        return max(refused / listed if refused else 0.0 for refused, listed in shares)


class HeldRemoval(models.Model):
    """One removal on hold: a skill that a sync run would have removed."""

    run = models.ForeignKey(SyncRun, on_delete=models.CASCADE, related_name="held_removals")
    skill_id = models.CharField(max_length=MAX_ID_CHARS)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("run", "skill_id"), name="held_once_a_run"),)

    def __str__(self) -> str:
        return visible(self.skill_id)


class DismissedRemoval(models.Model):
    """A skill that is kept although the marketplace does not list it, because its removal was dismissed.

    It does not count as missing. The row is deleted when the skill is listed again or its removal is approved. `run_id`
    is the sync run whose removals were dismissed; it is no foreign key, since the run is deleted earlier.
    """

    skill_id = models.CharField(max_length=MAX_ID_CHARS, unique=True)
    run_id = models.BigIntegerField()
    dismissed_at = models.DateTimeField()
    dismissed_by = models.CharField(max_length=255)

    def __str__(self) -> str:
        return visible(self.skill_id)
