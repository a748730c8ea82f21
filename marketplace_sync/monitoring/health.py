"""Is the mirror right and fresh? Decided on what the tables say, by the thresholds of the settings.

It is shown without a login, so a reason is one of the sentences here: never the marketplace's words, a host's name or a
path. Why the stream failed stands in `/api/admin/websocket/status/`, why a pass did in `/api/admin/sync/status/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from marketplace_sync.conf import SyncConfig
from marketplace_sync.models import WebSocketState
from marketplace_sync.monitoring.exposition import daemon_values
from marketplace_sync.monitoring.facts import Facts

State = WebSocketState.State


class Health(StrEnum):
    """How well; the worst check is the whole's."""

    HEALTHY = "healthy"  # right, and seconds fresh
    DEGRADED = "degraded"  # it serves, and somebody should look
    UNHEALTHY = "unhealthy"  # what it serves may be out of date, and does not mend by itself


_FROM_BEST = tuple(Health)


@dataclass(frozen=True, slots=True)
class Check:
    """One question's answer. `figures` go with it, for people and programs."""

    status: Health
    reason: str
    figures: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return {"status": str(self.status), "reason": self.reason, **self.figures}


def healthy(reason: str, **figures: object) -> Check:
    return Check(Health.HEALTHY, reason, figures)


def degraded(reason: str, **figures: object) -> Check:
    return Check(Health.DEGRADED, reason, figures)


def unhealthy(reason: str, **figures: object) -> Check:
    return Check(Health.UNHEALTHY, reason, figures)


@dataclass(frozen=True, slots=True)
class Report:
    """The checks by name. `status` is the worst of them."""

    checks: Mapping[str, Check]

    @property
    def status(self) -> Health:
        return max((check.status for check in self.checks.values()), key=_FROM_BEST.index)

    def as_json(self) -> dict[str, object]:
        checks = {name: check.as_json() for name, check in self.checks.items()}
        return {"status": str(self.status), "checks": checks}


NO_DATABASE = Report({"database": unhealthy("The database does not answer.")})


def judge(facts: Facts, config: SyncConfig) -> Report:
    """The health of the mirror."""
    database = healthy("The database answers.")
    if not config.enabled:
        off = "Switched off by ATOM_SAAS_ENABLED: the mirror is served as it is."
        return Report({"database": database, "daemon": healthy(off)})
    return Report(
        {
            "database": database,
            "daemon": _daemon(facts),
            "connection": _connection(facts),
            "pass": _pass(facts, config),
            "lag": _lag(facts, config),
            "token": _token(facts),
            "dead_letters": _dead_letters(facts, config),
            "removals": _removals(facts),
        }
    )


def _daemon(facts: Facts) -> Check:
    standby = facts.status.standby
    if facts.status.alive:
        return healthy("A daemon holds the lease and is alive.", standby=standby)
    if standby:
        return unhealthy("No daemon holds the lease; one that stands by should take it within 15 s.", standby=standby)
    return unhealthy("No daemon runs, or none was heard of for 15 s: start manage.py runsync.", standby=standby)


# A stream that somebody disabled is degraded as well: changes come by polling alone, and such a wish is easily
# forgotten. Where the settings want none (polling without a fallback) it is no fault, and nobody would mend it.
_STATES: Mapping[str, tuple[Health, str]] = {
    State.LIVE: (Health.HEALTHY, "The stream is open and all that was missed is caught up."),
    State.CONNECTING: (Health.HEALTHY, "The daemon has just started; its first attempt is under way."),
    State.CATCHING_UP: (Health.HEALTHY, "The stream is open; a full pass catches up with what was missed."),
    State.RECONNECTING: (Health.DEGRADED, "The stream is broken and tried again; polling goes on."),
    State.POLLING: (Health.DEGRADED, "The stream kept failing: polling only, until it is tried again."),
    State.RESTING: (Health.DEGRADED, "The stream used up its attempts and rests until somebody asks for a reconnect."),
    State.DISABLED: (Health.DEGRADED, "Somebody disabled the stream; polling goes on until it is enabled."),
    State.NOT_RUNNING: (Health.UNHEALTHY, "No daemon runs."),
}


def _connection(facts: Facts) -> Check:
    row = facts.status.row
    if row.state == State.POLLING and not row.fallback_to_polling:
        return healthy("Polling only, by the settings.", state=str(row.state))
    status, reason = _STATES[row.state]
    return Check(status, reason, {"state": str(row.state), "consecutive_failures": row.consecutive_failures})


def _pass(facts: Facts, config: SyncConfig) -> Check:
    if facts.clean_pass_at is None and facts.first_pass_at is None:
        return degraded("There was no pass yet.", age_seconds=None)
    since = facts.clean_pass_at or facts.first_pass_at
    assert since is not None
    age = (facts.now - since).total_seconds()
    figures = {"age_seconds": round(age, 1), "interval_seconds": config.sync_interval_seconds}
    missed = age / config.sync_interval_seconds
    if missed > config.health_pass_unhealthy:
        return unhealthy("No pass was clean for far longer than the interval.", **figures)
    if missed > config.health_pass_degraded:
        return degraded("No pass was clean for longer than the interval.", **figures)
    if facts.clean_pass_at is None:
        return degraded("No pass was clean yet.", **figures)
    if facts.last_pass_failed:
        return degraded("The last pass failed; it is tried again.", **figures)
    return healthy("The last clean pass is recent.", **figures)


def _lag(facts: Facts, config: SyncConfig) -> Check:
    lag = daemon_values(facts, "lag_recent_seconds").get(("lag_recent_seconds", ""))
    if lag is None:
        return degraded("Not known: no daemon tells.", seconds=None)
    figures = {"seconds": round(lag, 3)}
    if lag > config.health_lag_unhealthy:
        return unhealthy("Changes arrive far too late.", **figures)
    if lag > config.health_lag_degraded:
        return degraded("Changes arrive late.", **figures)
    return healthy("Changes of the last minute, if there were any, arrived in time.", **figures)


def _token(facts: Facts) -> Check:
    refused = {door for (_, door), value in daemon_values(facts, "token_refused").items() if value}
    if not facts.daemon_text:
        return degraded("Not known: no daemon tells.")
    if "api" in refused:
        return unhealthy("The marketplace refuses the token over HTTP: nothing can be read. Set a new one.")
    if "stream" in refused:
        return degraded("The marketplace refuses the token for the stream: polling only. Set a new one.")
    return healthy("The marketplace has not refused the token.")


def _dead_letters(facts: Facts, config: SyncConfig) -> Check:
    figures = {"last_hour": facts.letters_last_hour, "open": facts.open_letters}
    if config.health_dead_letters and facts.letters_last_hour >= config.health_dead_letters:
        return degraded("The marketplace sends much that can't be applied.", **figures)
    return healthy("Little or nothing was refused within the last hour.", **figures)


def _removals(facts: Facts) -> Check:
    if facts.held_removals:
        return degraded("Removals are held back until somebody approves them.", held=facts.held_removals)
    return healthy("No removal is held back.", held=0)
