"""The status of the mirror for a terminal: `manage.py mirrorstatus`. Reads, and changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.db import Error, ProgrammingError, connection
from django.utils.timesince import timesince

from marketplace_sync.conf import SyncConfig
from marketplace_sync.mirror.metrics import catalogue_size
from marketplace_sync.mirror.status import Freshness, freshness
from marketplace_sync.models import SyncRun
from marketplace_sync.monitoring.facts import Facts, read_facts
from marketplace_sync.monitoring.health import judge
from marketplace_sync.monitoring.report import Report

# Problems shown in the text, so that it has at most ten lines; --json has all.
_SHOWN = 2


class NoSummaryError(Exception):
    """The database cannot be read. The text gives the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The status of the mirror at one time."""

    report: Report
    facts: Facts
    fresh: Freshness
    skills: int
    categories: int
    last_run: SyncRun | None

    @property
    def open_commands(self) -> int:
        return sum(self.facts.open_commands.values())

    def as_json(self) -> dict[str, Any]:
        """Return everything, the checks as a list with the worst first."""
        facts, row, run = self.facts, self.facts.status.row, self.last_run
        return {
            "status": str(self.report.status),
            "state": str(row.state),
            "connected": row.connected,
            "enabled": row.enabled,
            "as_of": _iso(self.fresh.as_of),
            "age_seconds": _age(self.fresh.as_of, facts.now),
            "daemon": {
                "alive": facts.status.alive,
                "name": facts.status.daemon,
                "heartbeat_at": _iso(facts.status.heartbeat_at),
                "standby": facts.status.standby,
            },
            "skills": self.skills,
            "categories": self.categories,
            "feed_seq": facts.feed_seq,
            "last_run": run
            and {
                "id": run.pk,
                "state": run.state,
                "is_clean": run.is_clean,
                "finished_at": _iso(run.finished_at),
                "error": run.error,
            },
            "open": {
                "commands": self.open_commands,
                "dead_letters": facts.open_dead_letters,
                "held_runs": facts.held_runs,
                "held_removals": facts.held_removals,
            },
            "checks": [
                {"name": name, **check.as_json(), **({"detail": check.detail} if check.detail else {})}
                for name, check in self.report.worst_first()
            ],
        }

    def lines(self) -> Iterator[str]:
        """Yield at most ten lines: the health, the figures, then the worst problems."""
        facts, row, run = self.facts, self.facts.status.row, self.last_run
        yield f"{str(self.report.status).upper()}: {_first_reason(self.report)}"
        yield f"state      {row.state}, {'connected' if row.connected else 'not connected'}"
        yield f"as of      {_when(self.fresh.as_of, facts.now)}"
        beat = _when(facts.status.heartbeat_at, facts.now)
        yield f"daemon     {facts.status.daemon or 'none'}, heartbeat {beat}, {facts.status.standby} standing by"
        yield f"catalogue  {self.skills:,} skills, {self.categories:,} categories, feed number {facts.feed_seq}"
        if run is None:
            yield "last sync  none yet"
        else:
            ended = "" if run.finished_at is None else f", {_when(run.finished_at, facts.now)}"
            yield f"last sync  run {run.pk} {run.state}{', clean' if run.is_clean else ''}{ended}"
        yield (
            f"open       {self.open_commands} commands, {facts.open_dead_letters} dead letters, "
            f"{facts.held_removals} removals on hold"
        )
        problems = self.report.problems()
        for name, check in problems[:_SHOWN]:
            detail = f" ({check.detail})" if check.detail else ""
            yield f"{name:<10} {check.reason}{detail}{f' {check.do}' if check.do else ''}"
        if more := [f"{name} ({check.status})" for name, check in problems[_SHOWN:]]:
            yield f"also       {', '.join(more)}"


def summary(config: SyncConfig) -> Summary:
    """Read the status, whether or not a daemon runs. Raise `NoSummaryError`."""
    _require_database()
    try:
        facts = read_facts()
        skills, categories = catalogue_size()
        return Summary(
            report=judge(facts, config),
            facts=facts,
            fresh=freshness(),
            skills=skills,
            categories=categories,
            last_run=SyncRun.objects.order_by("-id").first(),
        )
    except Error as error:
        raise NoSummaryError(database_error_text(error)) from None


def database_error_text(error: Error) -> str:
    """Return in one line why the database could not be used, and what to do if that is known."""
    text = " ".join(str(error).split())
    if isinstance(error, ProgrammingError) or "no such table" in text or "no such column" in text:
        return f"migrations are not applied: run manage.py migrate ({text})"
    return f"the database does not answer: {text}"


def _require_database() -> None:
    if connection.vendor == "unknown":  # what Django sets for an invalid DATABASE_URL
        raise NoSummaryError("DATABASE_URL is invalid: run manage.py check")
    name = connection.settings_dict["NAME"]
    # SQLite would create the file.
    if connection.vendor == "sqlite" and not Path(name).exists() and "memory" not in str(name):
        raise NoSummaryError(f"there is no database file {name}: run manage.py migrate, or correct DATABASE_URL")


def _first_reason(report: Report) -> str:
    problems = report.problems()
    return problems[0][1].reason if problems else "the mirror is correct and fresh."


def _when(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    age = _age(at, now) or 0.0
    ago = f"{max(age, 0.0):.0f} s" if age < 120 else timesince(at, now).replace("\xa0", " ")
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z ({ago} ago)"


def _age(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else round((now - at).total_seconds(), 1)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
