"""The lease: one row that every writing transaction locks first."""

from django.db import models
from django.db.models import Q


class LeaseRow(models.Model):
    """The lease's owner, its last renewal, and the newest feed number (law 10).

    `epoch` grows with every owner; a writer that finds another epoch than its own has lost the
    lease. `renewed_at` is the database's clock. `holder` is `host:pid`, "" when the lease is free.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    holder = models.CharField(max_length=255, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    renewed_at = models.DateTimeField(null=True)
    feed_seq = models.BigIntegerField(default=0)

    class Meta:
        db_table = "marketplace_sync_lease"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="lease_one_row"),)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, {self.holder or 'free'}"


class Standby(models.Model):
    """A daemon that waits for the lease. `seen_at` is its last sign of life, by the database's clock."""

    holder = models.CharField(max_length=255, primary_key=True)
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "marketplace_sync_standby"

    def __str__(self) -> str:
        return self.holder
