"""The one judgement of how the mirror stands: `/health/sync`, the overview and `manage.py mirrorstatus` show it."""

import logging
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import Error

from marketplace_sync.conf import ConfigError, SyncConfig, load_config
from marketplace_sync.monitoring.facts import Facts, read_facts
from marketplace_sync.monitoring.health import NO_DATABASE, judge
from marketplace_sync.monitoring.last_said import LastReported
from marketplace_sync.monitoring.report import Report

log = structlog.get_logger(__name__)

_said: LastReported[tuple[str, ...]] = LastReported(())


def configured() -> SyncConfig:
    """Return the settings; the defaults where one of them is wrong, which `manage.py check` shows."""
    try:
        return load_config(settings)
    except ConfigError:
        return SyncConfig()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The report, and the facts that it was made of; `None` where the database did not answer."""

    report: Report
    facts: Facts | None


def judgement() -> Judgement:
    """Look at the mirror and judge it. A database that does not answer is a judgement too.

    The log of each process has one line when the judgement changes, however often it is asked for.
    """
    cause, facts = "", None
    try:
        facts = read_facts()
        report = judge(facts, configured())
    except Error as error:
        report, cause = NO_DATABASE, " ".join(str(error).split())
    troubles = report.troubles()
    if _said.differs(tuple(f"{name} {check.status}" for name, check in troubles)):
        reason = cause or (troubles[0][1].reason if troubles else "")
        log.log(
            logging.WARNING if troubles else logging.INFO, "health_changed", status=str(report.status),
            checks=",".join(name for name, _ in troubles), reason=reason,
        )  # fmt: skip
    return Judgement(report, facts)
