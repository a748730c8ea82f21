"""What several processes have to say at one `/metrics`: each writes, and whichever is asked reads all."""

from django.db import models
from django.db.models import Q


class DaemonMetrics(models.Model):
    """The daemon's own metrics as it last wrote them, under its lease, every few seconds. One row, `id` 1.

    `text` is Prometheus' exposition format. It is true of the daemon of `epoch` alone: once another owns the lease, or
    none is alive, it tells of the past.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    epoch = models.BigIntegerField(default=0)
    text = models.TextField(default="")
    written_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = (models.CheckConstraint(condition=Q(id=1), name="daemonmetrics_one_row"),)

    def __str__(self) -> str:
        return f"epoch {self.epoch}"


class FeedServer(models.Model):
    """A web process that serves clients of the change feed: how many, and how far the last of them is behind.

    `name` is `host:pid:random`. `lag` counts changes. `seen_at` is the database's clock; one that has not said so for a
    while serves nobody any more.
    """

    name = models.CharField(max_length=255, primary_key=True)
    clients = models.PositiveIntegerField(default=0)
    lag = models.PositiveBigIntegerField(default=0)
    seen_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
