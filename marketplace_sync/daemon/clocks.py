"""The clocks that the daemon reads; tests set others."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return our time of day."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Clocks:
    """A monotonic clock, in seconds, and our time of day, in UTC."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], datetime] = utc_now
