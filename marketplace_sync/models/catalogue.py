"""The mirrored catalogue: categories, skills, and tombstones of removed skills."""

from django.db import models
from django.db.models import Q

from marketplace_sync.models.fields import WrittenJSONField
from marketplace_sync.models.search import SkillQuerySet
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_COMMAND_CHARS,
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_URL_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.visible import visible

# Enough for a server time with a fraction of 32 digits; see protocol.stamps.
STAMP_CHARS = 64


class Category(models.Model):
    """A category that the marketplace lists or that a skill names.

    `updated_stamp` is `remote_updated_at` at the server's full precision; it decides which of two records is newer.
    `arrival` orders records with equal times (see `engine.merge`).
    """

    name = models.CharField(max_length=MAX_CATEGORY_CHARS, unique=True)
    description = models.TextField(blank=True, default="")
    icon_url = models.CharField(max_length=MAX_URL_CHARS, blank=True, default="")
    skill_count = models.BigIntegerField(default=0)
    remote_created_at = models.DateTimeField(null=True, blank=True)
    remote_updated_at = models.DateTimeField(null=True, blank=True)
    updated_stamp = models.CharField(max_length=STAMP_CHARS, null=True, editable=False)  # noqa: DJ001 - None: no time reported
    arrival = models.BigIntegerField(default=0, editable=False)

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "categories"
        constraints = (
            models.CheckConstraint(condition=Q(skill_count__gte=0), name="category_skill_count_not_negative"),
        )

    def __str__(self) -> str:
        return visible(self.name)


class Skill(models.Model):
    """A skill as the marketplace reported it.

    It has two clocks: `remote_updated_at` (with `updated_stamp`, `arrival`) for the record, and `rating_at` (with
    `rating_stamp`, `rating_arrival`) for the rating figures. `fingerprint` is a digest of all that a listing row
    reports: it identifies an unchanged row without a read of the whole record.
    """

    skill_id = models.CharField(max_length=MAX_ID_CHARS, unique=True)
    name = models.CharField(max_length=MAX_NAME_CHARS)
    description = models.TextField(blank=True, default="")
    version = models.CharField(max_length=MAX_VERSION_CHARS, blank=True, default="")
    code = models.TextField(blank=True, default="")
    command = models.CharField(max_length=MAX_COMMAND_CHARS, blank=True, default="")
    python_packages = WrittenJSONField(default=list, blank=True)
    npm_packages = WrittenJSONField(default=list, blank=True)
    tags = WrittenJSONField(default=list, blank=True)
    metadata = WrittenJSONField(default=dict, blank=True)
    # No index of its own: `skill_by_category` begins with this column.
    category = models.ForeignKey(
        Category, null=True, blank=True, on_delete=models.SET_NULL, related_name="skills", db_index=False
    )
    average_rating = models.FloatField(null=True, blank=True)
    rating_count = models.BigIntegerField(default=0)
    extra = WrittenJSONField(default=dict, blank=True)
    remote_created_at = models.DateTimeField(null=True, blank=True)
    remote_updated_at = models.DateTimeField(null=True, blank=True)
    rating_at = models.DateTimeField(null=True, blank=True)
    synced_at = models.DateTimeField()

    updated_stamp = models.CharField(max_length=STAMP_CHARS, null=True, editable=False)  # noqa: DJ001 - None: no time reported
    arrival = models.BigIntegerField(default=0, editable=False)
    rating_stamp = models.CharField(max_length=STAMP_CHARS, null=True, editable=False)  # noqa: DJ001 - None: no time reported
    rating_arrival = models.BigIntegerField(default=0, editable=False)
    fingerprint = models.CharField(max_length=32, default="", editable=False)

    objects = SkillQuerySet.as_manager()

    class Meta:
        ordering = ("name", "skill_id")
        constraints = (
            models.CheckConstraint(
                condition=Q(average_rating__isnull=True) | Q(average_rating__gte=0, average_rating__lte=5),
                name="skill_average_rating_0_to_5",
            ),
            models.CheckConstraint(condition=Q(rating_count__gte=0), name="skill_rating_count_not_negative"),
        )
        indexes = (
            # The indexes for the API's other orderings differ by database: migration 0003.
            models.Index(fields=("category", "name", "skill_id"), name="skill_by_category"),
        )

    def __str__(self) -> str:
        return visible(self.name)


class Tombstone(models.Model):
    """A removed skill. It prevents that an older record revives the skill (law 3).

    `deleted_stamp` is compared like a row's `updated_stamp`; `None` ties with everything.
    `removed_at` is the database's clock: the tombstone is deleted 7 days later.
    """

    skill_id = models.CharField(max_length=MAX_ID_CHARS, unique=True)
    deleted_at = models.DateTimeField(null=True)
    deleted_stamp = models.CharField(max_length=STAMP_CHARS, null=True)  # noqa: DJ001 - None: no time reported
    arrival = models.BigIntegerField(default=0)
    removed_at = models.DateTimeField(db_column="buried_at", db_index=True)
    # The primary key that the skill had, which is in the address of its page.
    skill_row = models.BigIntegerField(null=True, editable=False)

    def __str__(self) -> str:
        return visible(self.skill_id)
