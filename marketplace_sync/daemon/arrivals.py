"""The order in which things arrive, for law 2's ties."""

from marketplace_sync.engine.merge import arrival_number


class Arrivals:
    """Hands out arrivals that grow, above all those of earlier epochs."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._count = 0

    def next(self) -> int:
        """The arrival of what has just been received, or of a request that is being sent."""
        self._count += 1
        return arrival_number(self._epoch, self._count)
