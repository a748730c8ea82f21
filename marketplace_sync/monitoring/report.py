"""Health reports: checks, each with its status, the reason and what to do; the worst first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Health(StrEnum):
    """The result of a check. The worst check decides the result of a report."""

    HEALTHY = "healthy"  # correct, and at most seconds old
    DEGRADED = "degraded"  # it works, but a person should look at it
    UNHEALTHY = "unhealthy"  # what is served may be out of date, and a person has to act


_FROM_BEST = tuple(Health)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `do` is what a person can do about it; `figures` are numbers for people and programs.

    Everything but `detail` is shown without a login: `detail` may quote the marketplace.
    """

    status: Health
    reason: str
    figures: Mapping[str, object] = field(default_factory=dict)
    do: str = ""
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        """Return everything that may be shown without a login."""
        advice = {"do": self.do} if self.do else {}
        return {"status": str(self.status), "reason": self.reason, **advice, **self.figures}


def healthy(reason: str, **figures: object) -> Check:
    """Return a check that found no problem."""
    return Check(Health.HEALTHY, reason, figures)


def degraded(reason: str, *, do: str = "", detail: str = "", **figures: object) -> Check:
    """Return a check that a person should look at."""
    return Check(Health.DEGRADED, reason, figures, do, detail)


def unhealthy(reason: str, *, do: str = "", detail: str = "", **figures: object) -> Check:
    """Return a check that a person has to act on now."""
    return Check(Health.UNHEALTHY, reason, figures, do, detail)


@dataclass(frozen=True, slots=True)
class Report:
    """The checks by name, with a cause before its consequences. `status` is the worst of theirs."""

    checks: Mapping[str, Check]

    @property
    def status(self) -> Health:
        return max((check.status for check in self.checks.values()), key=_FROM_BEST.index)

    def worst_first(self) -> list[tuple[str, Check]]:
        """Return the checks, the worst first; among equally bad ones, the cause before its consequences."""
        return sorted(self.checks.items(), key=lambda each: -_FROM_BEST.index(each[1].status))

    def problems(self) -> list[tuple[str, Check]]:
        """Return the checks that found a problem, the worst first."""
        return [(name, check) for name, check in self.worst_first() if check.status is not Health.HEALTHY]

    def as_json(self) -> dict[str, object]:
        """Return everything that may be shown without a login."""
        return {"status": str(self.status), "checks": {name: check.as_json() for name, check in self.worst_first()}}
