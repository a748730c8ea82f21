"""The health of the mirror, judged in one place for `/health/sync`, the overview and `manage.py mirrorstatus`."""

import logging
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import Error

from marketplace_sync.conf import ConfigError, SyncConfig, load_config
from marketplace_sync.monitoring.facts import Facts, read_facts
from marketplace_sync.monitoring.health import NO_DATABASE, judge
from marketplace_sync.monitoring.last_reported import LastReported
from marketplace_sync.monitoring.report import Report

log = structlog.get_logger(__name__)

_last_problems: LastReported[tuple[str, ...]] = LastReported(())


def configured() -> SyncConfig:
    """Return the settings; the defaults if one of them is invalid, which `manage.py check` reports."""
    try:
        return load_config(settings)
    except ConfigError:
        return SyncConfig()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The report and the facts it is based on; `None` if the database did not answer."""

    report: Report
    facts: Facts | None


def judgement() -> Judgement:
    """Read the facts and judge them. If the database does not answer, that is the judgement.

    Each process logs one line when the judgement changes, however often this is called.
    """
    cause, facts = "", None
    try:
        facts = read_facts()
        report = judge(facts, configured())
    except Error as error:
        report, cause = NO_DATABASE, " ".join(str(error).split())
    problems = report.problems()
    if _last_problems.changes_to(tuple(f"{name} {check.status}" for name, check in problems)):
        reason = cause or (problems[0][1].reason if problems else "")
        log.log(
            logging.WARNING if problems else logging.INFO, "health_changed", status=str(report.status),
            checks=",".join(name for name, _ in problems), reason=reason,
        )  # fmt: skip
    return Judgement(report, facts)
