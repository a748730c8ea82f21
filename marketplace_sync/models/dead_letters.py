"""Dead letters: input from the marketplace that could not be applied."""

from django.db import models
from django.db.models import Q


class DeadLetter(models.Model):
    """One refused message, row or record. `count` counts identical ones, which are not stored again (law 6).

    `head` is the first 4 KiB of the raw bytes; `size` and `digest` are the length and the SHA-256 of all of them.
    `code` is a value of `protocol.refusals.Code`, `field` a dotted path into the record.
    """

    class Source(models.TextChoices):
        STREAM = "stream"
        LISTING = "listing"
        FETCH = "fetch"

    class State(models.TextChoices):
        OPEN = "open"
        REPLAYED = "replayed"
        DISCARDED = "discarded"

    source = models.CharField(max_length=10, choices=Source.choices)
    code = models.CharField(max_length=32)
    field = models.CharField(max_length=255, blank=True, default="")
    reason = models.CharField(max_length=500)
    kind = models.CharField(max_length=64, blank=True, default="")
    key = models.CharField(max_length=255, blank=True, default="")
    head = models.BinaryField()
    size = models.BigIntegerField()
    digest = models.CharField(max_length=64)
    count = models.PositiveBigIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ("-last_seen_at", "-id")
        constraints = (
            models.UniqueConstraint(fields=("source", "digest"), name="dead_letter_once"),
            models.CheckConstraint(condition=Q(count__gte=1), name="dead_letter_count_from_1"),
        )
        indexes = (models.Index(fields=("state", "-last_seen_at"), name="dead_letter_by_state"),)

    def __str__(self) -> str:
        return f"dead letter {self.pk}: {self.code}"
