"""The state of the connection to the marketplace: one row."""

from django.db import models
from django.db.models import Q

from marketplace_sync.models.fields import ConnectionStateField


class WebSocketState(models.Model):
    """The connection's state as the daemon last wrote it. One row, `id` 1; the database allows no second one.

    The daemon writes it on change, and at most once per second otherwise. After a crash the row keeps what was true
    before (law 9): `mirror.status.status()` returns what is true now.
    `in_sync_at`: when the state was last `live`, a few seconds late at most; it stays when the state changes.
    `complete`: the mirror knows of nothing that it refused or missed. While it is `False`, `in_sync_at` does not move.
    The totals count stream messages since the mirror was made; they survive restarts.
    """

    class State(models.TextChoices):
        NOT_RUNNING = "not_running"
        CONNECTING = "connecting"
        CATCHING_UP = "catching_up"
        LIVE = "live"
        RECONNECTING = "reconnecting"
        POLLING = "polling"
        SUSPENDED = "suspended"
        DISABLED = "disabled"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    connected = models.BooleanField(default=False)
    enabled = models.BooleanField(default=True)
    state = ConnectionStateField(max_length=12, choices=State.choices, default=State.NOT_RUNNING)
    state_since = models.DateTimeField(null=True)
    in_sync_at = models.DateTimeField(db_column="level_at", null=True)
    complete = models.BooleanField(default=True, db_default=True)
    last_connected_at = models.DateTimeField(null=True)
    last_message_at = models.DateTimeField(null=True)
    disconnect_reason = models.CharField(max_length=500, blank=True, default="")
    reconnect_attempts = models.PositiveIntegerField(default=0)
    consecutive_failures = models.PositiveIntegerField(default=0)
    fallback_to_polling = models.BooleanField(default=False)
    fallback_started_at = models.DateTimeField(null=True)
    next_ws_attempt_at = models.DateTimeField(null=True)

    received = models.BigIntegerField(default=0)
    applied = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    stale = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    shed = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "WebSocket state"
        verbose_name_plural = "WebSocket"  # the title of the admin's page
        constraints = (models.CheckConstraint(condition=Q(id=1), name="websocketstate_one_row"),)

    def __str__(self) -> str:
        return self.get_state_display()
