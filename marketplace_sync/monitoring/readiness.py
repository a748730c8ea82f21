"""Check whether this process can serve requests, for the load balancer that sends them."""

import asyncio
from typing import Any

import structlog
from asgiref.sync import async_to_sync
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from marketplace_sync.live.hints import shared_layer
from marketplace_sync.monitoring.last_reported import LastReported
from marketplace_sync.monitoring.report import Check, Report, degraded, healthy, unhealthy

log = structlog.get_logger(__name__)

_LAYER_SECONDS = 1.0
# The class of the last check's error, "" for none.
_database_error = LastReported("")
_layer_error = LastReported("")


class Readiness:
    """Check what this process needs. Migrations are looked up until they are all applied, and not again."""

    def __init__(self) -> None:
        self._migrated = False

    def check(self) -> Report:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            database = {"database": healthy("The database answers."), "migrations": self._migrations()}
            _database_error.changes_to("")
        except Error as error:
            if _database_error.changes_to(type(error).__name__):
                log.warning("not_ready", reason=" ".join(str(error).split()))
            database = {"database": unhealthy("The database does not answer.")}
        return Report({**database, "channel_layer": _channel_layer()})

    def _migrations(self) -> Check:
        if not self._migrated:
            executor = MigrationExecutor(connection)
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
            if missing:
                return unhealthy("Migrations are not applied. Run manage.py migrate.", missing=len(missing))
            self._migrated = True
        return healthy("All migrations are applied.")


def _channel_layer() -> Check:
    """Check the channel layer. Live pages without it are up to 0.25 s later, so the process still is ready."""
    layer = shared_layer()
    if layer is None:
        return healthy("No channel layer is shared between processes; each one polls the feed.")
    try:
        async_to_sync(_send)(layer)
    except Exception as error:  # noqa: BLE001 - a layer may raise anything; each means that it is unreachable
        if _layer_error.changes_to(type(error).__name__):
            log.warning("channel_layer_away", reason=str(error) or type(error).__name__)
        return degraded("The channel layer does not answer. Live pages update up to 0.25 s later.")
    _layer_error.changes_to("")
    return healthy("The channel layer answers.")


async def _send(layer: Any) -> None:
    async with asyncio.timeout(_LAYER_SECONDS):
        # The group has no members.
        await layer.group_send("health", {"type": "health.probe"})
