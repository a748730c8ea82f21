"""What the charts of the last 24 hours are made of."""

from django.db import models


class MinuteFigures(models.Model):
    """One minute of the daemon's work, by the database's clock. A minute without a row is one without a daemon.

    The counts are of stream messages and belong to the totals of `WebSocketState`: the same transaction wrote both.
    `lags` is a histogram (`engine.latency`: bucket, as text, to count) of how long after the marketplace's own time a
    change was committed; `lag_p50` and `lag_p99` are its quantiles in seconds, `None` where nothing was measured.
    The sizes are as last counted in that minute, `None` where they were not.
    """

    at = models.DateTimeField(primary_key=True)
    received = models.BigIntegerField(default=0)
    applied = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    stale = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    shed = models.BigIntegerField(default=0)
    lags = models.JSONField(default=dict)
    lag_p50 = models.FloatField(null=True)
    lag_p99 = models.FloatField(null=True)
    skills = models.BigIntegerField(null=True)
    categories = models.BigIntegerField(null=True)
    open_dead_letters = models.BigIntegerField(null=True)

    class Meta:
        db_table = "marketplace_sync_minute"
        ordering = ("at",)
        verbose_name_plural = "minute figures"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M}"
