"""Number what the daemon receives in order of arrival, which decides between equal times (law 2)."""

from marketplace_sync.engine.merge import arrival_number


class Arrivals:
    """Return increasing arrival numbers, all above those of earlier epochs."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._count = 0

    def next(self) -> int:
        """Return the arrival of a message that was just received, or of a request that is being sent."""
        self._count += 1
        return arrival_number(self._epoch, self._count)
