"""Judge whether the mirror is right and fresh: on what the tables say, by the thresholds of the settings.

`/health/sync` shows it without a login, so a reason is one of the sentences here: never the marketplace's words, a
host's name or a path. Those stand in a check's `detail`, for the pages and the terminal.
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
    {"database": unhealthy("The database does not answer.", do="Check that the database runs, and DATABASE_URL.")}
)
_START = "Start manage.py runsync."


def judge(facts: Facts, config: SyncConfig) -> Report:
    """Return the health of the mirror. A cause stands before its consequences."""
    if not config.enabled:
        off = "Switched off by ATOM_SAAS_ENABLED: the mirror is served as it is."
        return Report({"database": healthy("The database answers."), "daemon": healthy(off)})
    return Report(
        {
            "database": _database(facts),
            "daemon": _daemon(facts),
            "token": _token(facts),
            "records": _records(facts),
            "pass": _pass(facts, config),
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
            "The database is read-only: nothing can be written.",
            do="See that DATABASE_URL names the primary, and that the file or the server accepts writes.",
        )
    if trouble.session is not None:
        long = "" if trouble.seconds is None else f", and its transaction has run for {_span(trouble.seconds)}"
        return unhealthy(
            f"The database is write-locked: others wait for session {trouble.session}{long}.",
            do=f"End that transaction, or the session: SELECT pg_terminate_backend({trouble.session});",
            session=trouble.session,
        )
    return unhealthy(
        "The database is write-locked: another process keeps a transaction open, and nothing can be written.",
        do="Find and end the process that has the database open and writes (a shell, a backup, a paused program).",
    )


def _daemon(facts: Facts) -> Check:
    stand = facts.status
    standby = stand.standby
    if stand.alive:
        return healthy("A daemon holds the lease and is alive.", standby=standby)
    age = None if stand.heartbeat_at is None else (facts.now - stand.heartbeat_at).total_seconds()
    silent = "no daemon has been heard of" if age is None else f"the daemon has not been heard of for {_span(age)}"
    if facts.write_trouble is not None:
        return unhealthy(
            f"Nothing can be written, so {silent}; it may well run, and wait.",
            do="See to the database first. A daemon that waits goes on by itself; one that gave up has to be started.",
            standby=standby,
        )
    if stand.ahead_seconds:
        return unhealthy(
            f"The last heartbeat is dated {_span(stand.ahead_seconds)} ahead of the database's clock, which was put "
            "back. It is no sign of life.",
            do=f"A daemon that runs shows itself within 2 s. {_START} It takes over within 20 s.",
            standby=standby,
        )
    if standby:
        return unhealthy(
            "No daemon holds the lease; one that stands by should take it within 15 s.",
            do="If it does not, look at its log.",
            standby=standby,
        )
    if not stand.daemon:
        return unhealthy("No daemon runs: the last one was stopped." if facts.epoch else "No daemon has run yet.",
                         do=_START, standby=standby)  # fmt: skip
    return unhealthy(
        f"{silent[0].upper()}{silent[1:]}: it has died, hangs, or cannot reach the database.",
        do=f"{_START} If one runs, look at its log.",
        standby=standby,
    )


def _token(facts: Facts) -> Check:
    if not facts.daemon_text:
        return degraded("Not known: no daemon reports.")
    refused = {interface for (_, interface), value in daemon_values(facts, "token_refused").items() if value}
    do = "Set a new ATOM_SAAS_API_TOKEN where the daemon reads it."
    if "api" in refused:
        if facts.status.row.connected:
            return unhealthy("The marketplace refuses the token over HTTP: no full sync is possible.", do=do)
        return unhealthy("The marketplace refuses the token over HTTP: nothing can be read.", do=do)
    if "stream" in refused:
        do = (
            "The token itself is good: see ATOM_SAAS_WS_AUTH, how it is sent to the stream, and ask the marketplace "
            "whether it covers the stream. manage.py checkmarketplace tests it."
        )
        return degraded("The marketplace refuses the token for the stream, not over HTTP.", do=do)
    return healthy("The marketplace has not refused the token.")


def _pass(facts: Facts, config: SyncConfig) -> Check:
    if facts.clean_sync_at is None and facts.first_sync_at is None and not facts.clean_sync_ahead:
        return degraded("There was no full sync yet.", do=_to_read(facts), age_seconds=None)
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
        reason = "No full sync was clean for far longer than the interval."
        return unhealthy(f"{reason}{_failing(facts)}", do=_to_read(facts), detail=facts.failure, **figures)
    if missed > config.health_sync_degraded:
        reason = "No full sync was clean for longer than the interval."
        return degraded(f"{reason}{_failing(facts)}", do=_to_read(facts), detail=facts.failure, **figures)
    if facts.clean_sync_at is None and not facts.clean_sync_ahead:
        reason = "No full sync was clean yet."
        return degraded(f"{reason}{_failing(facts)}", do=_to_read(facts), detail=facts.failure, **figures)
    if facts.failures:
        return degraded(_failing(facts).strip(), do=_to_read(facts), detail=facts.failure, **figures)
    if facts.clean_sync_ahead:
        reason = "The last clean full sync is dated ahead of the database's clock, which was put back."
        return degraded(reason, do="The next clean one settles this.", **figures)
    return healthy("The last clean full sync is recent.", **figures)


def _failing(facts: Facts) -> str:
    """Return since when nothing could be listed, and whether that is tried again; "" where the last try went well."""
    if facts.failing_since is None:
        return ""
    tries = "a full sync has failed" if facts.failures == 1 else f"{facts.failures} full syncs have failed"
    again = "it is tried again by itself" if facts.status.alive else "no daemon runs, so none is tried"
    return f" The marketplace could not be read since {_moment(facts.failing_since)}: {tries}; {again}."


def _to_read(facts: Facts) -> str:
    if not facts.status.alive:
        return ""  # what to do is to be read at the daemon
    return "See the error of the last run; manage.py checkmarketplace tests the connection step by step."


# A stream that somebody disabled is degraded as well: changes come by polling alone, and such a wish is easily
# forgotten. Where the settings want none (polling without a fallback) it is no fault, and nobody would settle it.
_STATES: Mapping[str, tuple[Health, str, str]] = {
    State.LIVE: (Health.HEALTHY, "The stream is open and all that was missed is caught up.", ""),
    State.CONNECTING: (Health.HEALTHY, "The daemon has just started; its first attempt is under way.", ""),
    State.CATCHING_UP: (Health.HEALTHY, "The stream is open; a full sync catches up with what was missed.", ""),
    State.RECONNECTING: (Health.DEGRADED, "The stream is broken, and is tried again.", ""),
    State.POLLING: (Health.DEGRADED, "The stream kept failing, and is left alone for a while.", "Reconnect"),
    State.SUSPENDED: (Health.DEGRADED, "The stream has used up its attempts, and is not tried again.", "Reconnect"),
    State.DISABLED: (Health.DEGRADED, "The stream is disabled, by a person or an agent.", "Enable"),
    State.NOT_RUNNING: (Health.UNHEALTHY, "There is no stream: no daemon has been heard of.", ""),
}
_BUTTONS = {
    "Reconnect": "If the marketplace is well again, ask for a reconnect: it is tried at once.",
    "Enable": "Enable the stream when it is wanted again.",
}


def _connection(facts: Facts) -> Check:
    row = facts.status.row
    if row.state == State.POLLING and not row.fallback_to_polling:
        return healthy("Polling only, by the settings.", state=str(row.state))
    if row.state == State.NOT_RUNNING and facts.status.alive:
        return degraded("No stream: a daemon begins, or runsync --once or verifysync --repair is at work.",
                        do="Start manage.py runsync when that is done.", state=str(row.state))  # fmt: skip
    status, reason, button = _STATES[row.state]
    figures: dict[str, Any] = {"state": str(row.state), "consecutive_failures": row.consecutive_failures}
    if row.state == State.POLLING and row.next_ws_attempt_at is not None:
        reason = f"The stream kept failing, and is left alone until {_moment(row.next_ws_attempt_at)}."
    if status is Health.DEGRADED:
        # Where reading fails too, polling brings nothing.
        reads = "Full syncs fail too: nothing comes in." if facts.failures else "Changes come by full syncs alone."
        return degraded(f"{reason} {reads}", do=_BUTTONS.get(button, ""), detail=row.disconnect_reason, **figures)
    return Check(status, reason, figures)


# One broken record of 5,000 may stay broken for months, which is no reason to wake anybody. From a hundredth on
# somebody should look, and where a quarter cannot be read the marketplace writes what this release does not read.
REFUSED_SHARE_DEGRADED = 0.01
REFUSED_SHARE_UNHEALTHY = 0.25


def _records(facts: Facts) -> Check:
    figures: dict[str, Any] = {"refused": facts.refused_records, "share": round(facts.refused_share, 4)}
    do = "Look at the dead letters: their reasons say what the marketplace has changed. verifysync names the records."
    if facts.refused_share >= REFUSED_SHARE_UNHEALTHY:
        return unhealthy("Much or all of what the marketplace lists cannot be read.", do=do, **figures)
    if facts.refused_share >= REFUSED_SHARE_DEGRADED:
        return degraded("Some of what the marketplace lists cannot be read.", do=do, **figures)
    if facts.refused_records:
        return healthy("A few listed records cannot be read; the mirror does not have what they say.", **figures)
    return healthy("The last full sync read every listed record.", **figures)


def _lag(facts: Facts, config: SyncConfig) -> Check:
    lag = daemon_values(facts, "lag_recent_seconds").get(("lag_recent_seconds", ""))
    if lag is None:
        return degraded("Not known: no daemon reports.", seconds=None)
    figures: dict[str, Any] = {"seconds": round(lag, 3)}
    do = "Compare the clocks of marketplace and daemon, and look at the daemon's queue and the database's load."
    if lag > config.health_lag_unhealthy:
        return unhealthy("Changes arrive far too late.", do=do, **figures)
    if lag > config.health_lag_degraded:
        return degraded("Changes arrive late.", do=do, **figures)
    return healthy("Changes of the last minute, if there were any, arrived in time.", **figures)


def _removals(facts: Facts) -> Check:
    if facts.held_removals:
        return degraded(
            f"{facts.held_removals:,} removals are on hold until somebody decides about them.",
            do="Look at the run that lists them: approve it, or dismiss it.",
            held=facts.held_removals,
        )
    return healthy("No removal is on hold.", held=0)


def _dead_letters(facts: Facts, config: SyncConfig) -> Check:
    figures: dict[str, Any] = {"last_hour": facts.dead_letters_last_hour, "open": facts.open_dead_letters}
    if config.health_dead_letters and facts.dead_letters_last_hour >= config.health_dead_letters:
        do = "Look at the dead letters: their reasons say what the marketplace has changed."
        return degraded("The marketplace sends much that can't be applied.", do=do, **figures)
    return healthy("Little or nothing was refused within the last hour.", **figures)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _span(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
