"""What a judgement is made of: checks, each with its state, its cause and what to do; the worst first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Health(StrEnum):
    """How well; the worst check is the whole's."""

    HEALTHY = "healthy"  # right, and seconds fresh
    DEGRADED = "degraded"  # it serves, and somebody should look
    UNHEALTHY = "unhealthy"  # what it serves may be out of date, and this does not end by itself


_FROM_BEST = tuple(Health)


@dataclass(frozen=True, slots=True)
class Check:
    """One question's answer. `do`: what a person can do about it. `figures` go with it, for people and programs.

    All of it is shown without a login. `detail` is not: it may quote the marketplace.
    """

    status: Health
    reason: str
    figures: Mapping[str, object] = field(default_factory=dict)
    do: str = ""
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what may be shown without a login."""
        advice = {"do": self.do} if self.do else {}
        return {"status": str(self.status), "reason": self.reason, **advice, **self.figures}


def healthy(reason: str, **figures: object) -> Check:
    """Return a check that found nothing wrong."""
    return Check(Health.HEALTHY, reason, figures)


def degraded(reason: str, *, do: str = "", detail: str = "", **figures: object) -> Check:
    """Return a check that somebody should look at."""
    return Check(Health.DEGRADED, reason, figures, do, detail)


def unhealthy(reason: str, *, do: str = "", detail: str = "", **figures: object) -> Check:
    """Return a check that needs somebody now."""
    return Check(Health.UNHEALTHY, reason, figures, do, detail)


@dataclass(frozen=True, slots=True)
class Report:
    """The checks by name, a cause before its consequences. `status` is the worst of them."""

    checks: Mapping[str, Check]

    @property
    def status(self) -> Health:
        return max((check.status for check in self.checks.values()), key=_FROM_BEST.index)

    def worst_first(self) -> list[tuple[str, Check]]:
        """Return the checks, the worst first; of equally bad ones the cause before its consequences."""
        return sorted(self.checks.items(), key=lambda each: -_FROM_BEST.index(each[1].status))

    def troubles(self) -> list[tuple[str, Check]]:
        """Return the checks that found something, the worst first."""
        return [(name, check) for name, check in self.worst_first() if check.status is not Health.HEALTHY]

    def as_json(self) -> dict[str, object]:
        """Return what may be shown without a login."""
        return {"status": str(self.status), "checks": {name: check.as_json() for name, check in self.worst_first()}}
