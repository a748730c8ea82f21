"""Judge from the tables whether the mirror is correct and fresh, by the thresholds of the settings.

`/health/sync` shows the result without a login. A reason is therefore one of the sentences here and never contains a
text of the marketplace, a host name or a path. Those are in a check's `detail`, for the pages and the terminal.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from marketplace_sync.conf import SyncConfig
from marketplace_sync.models import WebSocketState
from marketplace_sync.monitoring.exposition import daemon_values
from marketplace_sync.monitoring.facts import Facts
from marketplace_sync.monitoring.report import Check, Health, Report, degraded, healthy, unhealthy

State = WebSocketState.State

NO_DATABASE = Report(
    {
        "database": unhealthy(
            "The database does not answer.", do="Check that the database runs and that DATABASE_URL is correct."
        )
    }
)
_START = "Start manage.py runsync."


def judge(facts: Facts, config: SyncConfig) -> Report:
    """Return the health of the mirror, with causes before their consequences."""
    if not config.enabled:
        off = "Syncing is switched off by ATOM_SAAS_ENABLED. The mirror is served unchanged."
        return Report({"database": healthy("The database answers."), "daemon": healthy(off)})
    return Report(
        {
            "database": _database(facts),
            "daemon": _daemon(facts),
            "token": _token(facts),
            "records": _records(facts),
            "sync": _sync(facts, config),
            "connection": _connection(facts),
            "lag": _lag(facts, config),
            "removals": _removals(facts),
            "dead_letters": _dead_letters(facts, config),
        }
    )


def _database(facts: Facts) -> Check:
    trouble = facts.write_trouble
    if trouble is None:
        return healthy("The database answers.")
    if trouble.read_only:
        return unhealthy(
            "The database is read-only, so nothing can be written.",
            do="Check that DATABASE_URL names the primary, and that the file or the server accepts writes.",
        )
    if trouble.session is not None:
        duration = "" if trouble.seconds is None else f", whose transaction has run for {_span(trouble.seconds)}"
        return unhealthy(
            f"The database is locked for writing by session {trouble.session}{duration}.",
            do=f"End that transaction, or the session: SELECT pg_terminate_backend({trouble.session});",
            session=trouble.session,
        )
    return unhealthy(
        "The database is locked for writing: another process keeps a transaction open.",
        do="Find and end the process that writes to the database: a shell, a backup, or a paused program.",
    )


def _daemon(facts: Facts) -> Check:
    status = facts.status
    standby = status.standby
    if status.alive:
        return healthy("A daemon owns the lease and runs.", standby=standby)
    age = None if status.heartbeat_at is None else (facts.now - status.heartbeat_at).total_seconds()
    silent = "no daemon has sent a heartbeat" if age is None else f"the daemon has sent no heartbeat for {_span(age)}"
    if facts.write_trouble is not None:
        return unhealthy(
            f"Nothing can be written, and {silent}. The daemon may be running and waiting for the database.",
            do="Repair the database first. A daemon that waits then continues; start it again if it has exited.",
            standby=standby,
        )
    if status.ahead_seconds:
        return unhealthy(
            f"The last heartbeat is dated {_span(status.ahead_seconds)} ahead of the database's clock, which was set "
            "back, so it does not show that a daemon runs.",
            do=f"A running daemon sends a heartbeat within 2 s. Otherwise: {_START} It takes over within 20 s.",
            standby=standby,
        )
    if standby:
        return unhealthy(
            "No daemon owns the lease. A standby daemon should take it within 15 s.",
            do="If it does not, read its log.",
            standby=standby,
        )
    if not status.daemon:
        return unhealthy("No daemon runs. The last one was stopped." if facts.epoch else "No daemon has run yet.",
                         do=_START, standby=standby)  # fmt: skip
    return unhealthy(
        f"{silent[0].upper()}{silent[1:]}. It has crashed, hangs, or cannot reach the database.",
        do=f"{_START} If one runs, read its log.",
        standby=standby,
    )


def _token(facts: Facts) -> Check:
    if not facts.daemon_text:
        return degraded("Unknown, because no daemon reports it.")
    refused = {interface for (_, interface), value in daemon_values(facts, "token_refused").items() if value}
    do = "Set a new ATOM_SAAS_API_TOKEN where the daemon reads it."
    if "api" in refused:
        if facts.status.row.connected:
            return unhealthy("The marketplace refuses the token over HTTP, so no full sync is possible.", do=do)
        return unhealthy("The marketplace refuses the token over HTTP, so nothing can be read.", do=do)
    if "stream" in refused:
        do = (
            "The token is valid. Check ATOM_SAAS_WS_AUTH, which sets how it is sent to the stream, and ask the "
            "marketplace whether the token covers the stream. manage.py checkmarketplace tests both."
        )
        return degraded("The marketplace refuses the token for the stream, but accepts it over HTTP.", do=do)
    return healthy("The marketplace has not refused the token.")


def _sync(facts: Facts, config: SyncConfig) -> Check:
    if facts.clean_sync_at is None and facts.first_sync_at is None and not facts.clean_sync_ahead:
        return degraded("No full sync has run yet.", do=_reading_advice(facts), age_seconds=None)
    since = facts.clean_sync_at or facts.first_sync_at
    age = None if since is None else (facts.now - since).total_seconds()
    figures: dict[str, Any] = {
        "age_seconds": None if age is None else round(age, 1),
        "interval_seconds": config.sync_interval_seconds,
    }
    if facts.failing_since is not None:
        figures |= {"failures": facts.failures, "failing_since": facts.failing_since.isoformat()}
    missed = 0.0 if age is None else age / config.sync_interval_seconds
    if missed > config.health_sync_unhealthy:
        reason = "No full sync has been clean for far longer than the sync interval."
        return unhealthy(f"{reason}{_failing(facts)}", do=_reading_advice(facts), detail=facts.failure, **figures)
    if missed > config.health_sync_degraded:
        reason = "No full sync has been clean for longer than the sync interval."
        return degraded(f"{reason}{_failing(facts)}", do=_reading_advice(facts), detail=facts.failure, **figures)
    if facts.clean_sync_at is None and not facts.clean_sync_ahead:
        reason = "No full sync has been clean yet."
        return degraded(f"{reason}{_failing(facts)}", do=_reading_advice(facts), detail=facts.failure, **figures)
    if facts.failures:
        return degraded(_failing(facts).strip(), do=_reading_advice(facts), detail=facts.failure, **figures)
    if facts.clean_sync_ahead:
        reason = "The last clean full sync is dated ahead of the database's clock, which was set back."
        return degraded(reason, do="The next clean full sync resolves this.", **figures)
    return healthy("The last clean full sync is recent.", **figures)


def _failing(facts: Facts) -> str:
    """Return since when full syncs have failed, and whether they are retried; "" if the last one did not fail."""
    if facts.failing_since is None:
        return ""
    failed = "1 full sync has failed" if facts.failures == 1 else f"{facts.failures} full syncs have failed"
    retry = "The daemon retries." if facts.status.alive else "No daemon runs, so nothing is retried."
    return f" The marketplace could not be read since {_time(facts.failing_since)}: {failed}. {retry}"


def _reading_advice(facts: Facts) -> str:
    if not facts.status.alive:
        return ""  # the daemon's check has the advice
    return "Read the error of the last sync run. manage.py checkmarketplace tests the connection step by step."


# A stream that a person or an agent disabled is degraded, because that is easily forgotten and changes come by polling
# alone. Where the settings switch the stream off, polling is healthy: otherwise the warning would never end.
_STATES: Mapping[str, tuple[Health, str, str]] = {
    State.LIVE: (Health.HEALTHY, "The stream is open, and the mirror has caught up.", ""),
    State.CONNECTING: (Health.HEALTHY, "The daemon has just started and connects for the first time.", ""),
    State.CATCHING_UP: (Health.HEALTHY, "The stream is open, and a full sync is catching up.", ""),
    State.RECONNECTING: (Health.DEGRADED, "The stream is disconnected. The daemon reconnects.", ""),
    State.POLLING: (
        Health.DEGRADED,
        "The stream keeps failing. The daemon waits before the next attempt.",
        "Reconnect",
    ),
    State.SUSPENDED: (Health.DEGRADED, "All attempts to reconnect the stream are used up.", "Reconnect"),
    State.DISABLED: (Health.DEGRADED, "A person or an agent has disabled the stream.", "Enable"),
    State.NOT_RUNNING: (Health.UNHEALTHY, "There is no stream, because no daemon runs.", ""),
}
_BUTTONS = {
    "Reconnect": "When the marketplace works again, reconnect: the daemon connects immediately.",
    "Enable": "Enable the stream when it is needed again.",
}


def _connection(facts: Facts) -> Check:
    row = facts.status.row
    if row.state == State.POLLING and not row.fallback_to_polling:
        return healthy("The settings switch the stream off. Changes come by polling.", state=str(row.state))
    if row.state == State.NOT_RUNNING and facts.status.alive:
        return degraded("There is no stream: a daemon starts, or runsync --once or verifysync --repair is running.",
                        do="Start manage.py runsync when that has ended.", state=str(row.state))  # fmt: skip
    status, reason, button = _STATES[row.state]
    figures: dict[str, Any] = {"state": str(row.state), "consecutive_failures": row.consecutive_failures}
    if row.state == State.POLLING and row.next_ws_attempt_at is not None:
        reason = f"The stream keeps failing. The next attempt is at {_time(row.next_ws_attempt_at)}."
    if status is Health.DEGRADED:
        # If full syncs fail too, polling brings nothing.
        polling = (
            "Full syncs fail too, so no changes arrive." if facts.failures else "Changes come by full syncs alone."
        )
        return degraded(f"{reason} {polling}", do=_BUTTONS.get(button, ""), detail=row.disconnect_reason, **figures)
    return Check(status, reason, figures)


# One broken record of 5,000 may stay broken for months, and is no reason to wake anybody. From 1 % on a person should
# look. At 25 % the marketplace probably writes a format that this release cannot read.
REFUSED_SHARE_DEGRADED = 0.01
REFUSED_SHARE_UNHEALTHY = 0.25


def _records(facts: Facts) -> Check:
    figures: dict[str, Any] = {"refused": facts.refused_records, "share": round(facts.refused_share, 4)}
    do = "Read the reasons of the dead letters: they show what the marketplace changed. verifysync lists the records."
    if facts.refused_share >= REFUSED_SHARE_UNHEALTHY:
        return unhealthy("A quarter or more of the listed records cannot be read.", do=do, **figures)
    if facts.refused_share >= REFUSED_SHARE_DEGRADED:
        return degraded("Some of the listed records cannot be read.", do=do, **figures)
    if facts.refused_records:
        return healthy(
            "A few listed records cannot be read, so the mirror may have outdated values for them.", **figures
        )
    return healthy("The last full sync read every listed record.", **figures)


def _lag(facts: Facts, config: SyncConfig) -> Check:
    lag = daemon_values(facts, "lag_recent_seconds").get(("lag_recent_seconds", ""))
    if lag is None:
        return degraded("Unknown, because no daemon reports it.", seconds=None)
    figures: dict[str, Any] = {"seconds": round(lag, 3)}
    do = "Compare the clocks of marketplace and daemon. Check the daemon's queue and the database's load."
    if lag > config.health_lag_unhealthy:
        return unhealthy("Changes arrive far too late.", do=do, **figures)
    if lag > config.health_lag_degraded:
        return degraded("Changes arrive late.", do=do, **figures)
    return healthy("All changes of the last minute arrived in time.", **figures)


def _removals(facts: Facts) -> Check:
    if facts.held_removals:
        return degraded(
            f"{facts.held_removals:,} removals are on hold until they are approved or dismissed.",
            do="Open the sync run that lists them, and approve or dismiss it.",
            **_figure(facts.held_removals),
        )
    return healthy("No removal is on hold.", **_figure(0))


def _figure(count: int) -> dict[str, Any]:
    return {"held": count}


def _dead_letters(facts: Facts, config: SyncConfig) -> Check:
    figures: dict[str, Any] = {"last_hour": facts.dead_letters_last_hour, "open": facts.open_dead_letters}
    if config.health_dead_letters and facts.dead_letters_last_hour >= config.health_dead_letters:
        do = "Read the reasons of the dead letters: they show what the marketplace has changed."
        return degraded("Many messages and rows of the last hour could not be applied.", do=do, **figures)
    return healthy("Few or no messages and rows of the last hour were refused.", **figures)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _span(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
