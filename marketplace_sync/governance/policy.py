"""The whole policy: which maturity may do actions of which complexity. Pure."""

from enum import StrEnum


class Maturity(StrEnum):
    """How far an actor is trusted, from least to most."""

    STUDENT = "STUDENT"
    INTERN = "INTERN"
    SUPERVISED = "SUPERVISED"
    AUTONOMOUS = "AUTONOMOUS"

    @property
    def rank(self) -> int:
        """The rank, from 0 for STUDENT to 3 for AUTONOMOUS. Compare ranks, not names."""
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
    """Return the least maturity that may do actions of this complexity."""
    return _REQUIRED[complexity]


def allows(actual: Maturity, complexity: Complexity) -> bool:
    """Return whether an actor of this maturity may do actions of this complexity."""
    return actual.rank >= required_for(complexity).rank
