"""The change feed: one row for each change that was committed to the mirror."""

from django.db import models
from django.db.models import Q

from marketplace_sync.models.fields import WrittenJSONField
from marketplace_sync.protocol.limits import MAX_ID_CHARS
from marketplace_sync.visible import visible


class FeedChange(models.Model):
    """One change. `seq`, the feed number, is taken under the lease row's lock, so its order is commit order (law 10).

    `key` is a `skill_id` or a category's name. `fields` names the fields that an update changed. `data` is the whole
    record when created, the changed fields when updated, and `deleted_at` or nothing when deleted.
    """

    class Kind(models.TextChoices):
        SKILL_CREATED = "skill_created"
        SKILL_UPDATED = "skill_updated"
        SKILL_DELETED = "skill_deleted"
        RATING_CHANGED = "rating_changed"
        CATEGORY_CREATED = "category_created"
        CATEGORY_UPDATED = "category_updated"
        CATEGORY_DELETED = "category_deleted"

    class Source(models.TextChoices):
        STREAM = "stream"
        LISTING = "listing"
        REPAIR = "repair"

    seq = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    key = models.CharField(max_length=MAX_ID_CHARS)
    at = models.DateTimeField()
    source = models.CharField(max_length=10, choices=Source.choices)
    fields = WrittenJSONField(default=list)
    data = WrittenJSONField(default=dict)
    # No foreign key: a feed row outlives its sync run, and the check would cost the writer time.
    run_id = models.BigIntegerField(null=True)

    class Meta:
        db_table = "marketplace_sync_change"
        ordering = ("seq",)
        verbose_name_plural = "change feed"  # the title of the admin's list
        constraints = (models.CheckConstraint(condition=Q(seq__gte=1), name="change_seq_from_1"),)
        indexes = (
            models.Index(fields=("key", "-seq"), name="change_by_key"),
            # Only the changes of full syncs are looked up by run; the stream's, most of them, are not in the index.
            models.Index(fields=("run_id", "seq"), name="change_by_run", condition=Q(run_id__isnull=False)),
        )

    def __str__(self) -> str:
        return visible(f"feed change {self.seq}: {self.kind} {self.key}")
