"""Metrics of several processes: each writes its own rows, and the one that answers `/metrics` reads all."""

from django.db import models
from django.db.models import Q


class DaemonMetrics(models.Model):
    """The daemon's own metrics, which it writes every few seconds under its lease. One row, `id` 1.

    `text` is Prometheus' exposition format. It describes the daemon of `epoch` only: it is out of date once another
    daemon owns the lease, or none is alive.
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
    """A web process that serves subscribers of the change feed: `clients` of them, the slowest `lag` changes behind.

    `name` is `host:pid:random`. `seen_at` is its last sign of life by the database's clock; without one for a while it
    is not counted any more.
    """

    name = models.CharField(max_length=255, primary_key=True)
    clients = models.PositiveIntegerField(default=0)
    lag = models.PositiveBigIntegerField(default=0)
    seen_at = models.DateTimeField()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
