"""The figures behind the charts of the last 24 hours."""

from django.db import models


class MinuteFigures(models.Model):
    """One minute of the daemon's work, by the database's clock. A minute without a row is one without a daemon.

    The counts are of stream messages; the transaction that writes them writes the totals of `WebSocketState` too.
    `lags` is a histogram (`engine.latency`: bucket, as text, to count) of the time from the marketplace's own time of a
    change to its commit. `lag_p50` and `lag_p99` are its quantiles in seconds, `None` where nothing was measured.
    The last three are sizes as last counted in that minute, `None` where they were not.
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
