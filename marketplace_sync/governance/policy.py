"""Maturity against complexity: the whole policy. Pure."""

from enum import StrEnum


class Maturity(StrEnum):
    """How far an actor is trusted, from least to most (INTERFACE.md, Governance)."""

    STUDENT = "STUDENT"
    INTERN = "INTERN"
    SUPERVISED = "SUPERVISED"
    AUTONOMOUS = "AUTONOMOUS"

    @property
    def rank(self) -> int:
        """0 for STUDENT to 3 for AUTONOMOUS. Compare this, not the names."""
        return _LEVELS.index(self)


class Complexity(StrEnum):
    """How much harm an action can do, from least to most. Reading is LOW, everything under `/api/admin/` CRITICAL."""

    LOW = "LOW"
    MODERATE = "MODERATE"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"


_LEVELS = tuple(Maturity)
_REQUIRED = dict(zip(Complexity, Maturity, strict=True))


def required_for(complexity: Complexity) -> Maturity:
    """The least maturity that may do something of this complexity."""
    return _REQUIRED[complexity]


def allows(actual: Maturity, complexity: Complexity) -> bool:
    """May an actor of this maturity do something of this complexity?"""
    return actual.rank >= required_for(complexity).rank
