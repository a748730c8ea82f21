"""May this process be sent requests? Asked before it is put behind the load balancer, and while it is there."""

import asyncio
from typing import Any

import structlog
from asgiref.sync import async_to_sync
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from marketplace_sync.live.hints import shared_layer
from marketplace_sync.monitoring.last_said import LastReported
from marketplace_sync.monitoring.report import Check, Report, degraded, healthy, unhealthy

log = structlog.get_logger(__name__)

_LAYER_SECONDS = 1.0
# Causes of what was not healthy at the last look, "" for none.
_database_said = LastReported("")
_layer_said = LastReported("")


class Readiness:
    """Looks at what this process needs. That the migrations are applied is asked until it is so, and not again."""

    def __init__(self) -> None:
        self._migrated = False

    def look(self) -> Report:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            database = {"database": healthy("The database answers."), "migrations": self._migrations()}
            _database_said.differs("")
        except Error as fault:
            if _database_said.differs(type(fault).__name__):
                log.warning("not_ready", reason=" ".join(str(fault).split()))
            database = {"database": unhealthy("The database does not answer.")}
        return Report({**database, "channel_layer": _channel_layer()})

    def _migrations(self) -> Check:
        if not self._migrated:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
            if missing:
                return unhealthy("Migrations are not applied: run manage.py migrate.", missing=len(missing))
            self._migrated = True
        return healthy("All migrations are applied.")


def _channel_layer() -> Check:
    """Without it live pages wait for the next look at the feed, a quarter of a second: no reason to send nobody."""
    layer = shared_layer()
    if layer is None:
        return healthy("None is shared between processes; each looks at the feed by itself.")
    try:
        async_to_sync(_send)(layer)
    except Exception as fault:  # noqa: BLE001 - whatever a layer raises says the same: it can't be reached
        if _layer_said.differs(type(fault).__name__):
            log.warning("channel_layer_away", reason=str(fault) or type(fault).__name__)
        return degraded("The channel layer does not answer; live pages are a little later.")
    _layer_said.differs("")
    return healthy("The channel layer answers.")


async def _send(layer: Any) -> None:
    async with asyncio.timeout(_LAYER_SECONDS):
        # To a group that nobody is in.
        await layer.group_send("health", {"type": "health.probe"})
