"""Remember whether the mirror is known to be incomplete.

The content of a refused record or a lost message is missing from the mirror. Until a fetch or a full sync brings it,
the time up to which the mirror is complete (`X-Mirror-As-Of`) must not advance.
"""

from collections.abc import Callable

from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.sync_report import SyncReport

# More refused skills than this count as one loss: only a full sync brings them.
_MAX_REFUSED = 10_000


class Completeness(DaemonObserver):
    """Remember what is known to be missing. `arrive` returns the arrival of what happens now (law 2)."""

    def __init__(self, arrive: Callable[[], int]) -> None:
        self._arrive = arrive
        self._refused: dict[str, int] = {}
        self._lost_at = 0  # 0: nothing was lost
        self._left_out_by_sync = False

    @property
    def complete(self) -> bool:
        """Return whether nothing is known to be missing."""
        return not (self._refused or self._lost_at or self._left_out_by_sync)

    def lost(self) -> None:
        """Note a message that was not applied, where only a full sync brings what it reported."""
        self._lost_at = self._arrive()

    def refused(self, skill_id: str) -> None:
        """Note a skill whose message was not applied, and whose fetched record cannot be read either."""
        if len(self._refused) >= _MAX_REFUSED:
            self.lost()
        else:
            self._refused[skill_id] = self._arrive()

    def fetched(self, skill_id: str) -> None:
        """Note a skill that is in the mirror as the marketplace has it now, or is gone from both."""
        self._refused.pop(skill_id, None)

    def sync_ended(self, report: SyncReport, seconds: float) -> None:
        """Forget what was missing before a full sync that read everything."""
        if report.refused or report.unread:
            self._left_out_by_sync = True
        elif report.clean and not report.again:
            self._left_out_by_sync = False
            self._refused = {skill_id: at for skill_id, at in self._refused.items() if at > report.begun}
            if self._lost_at <= report.begun:
                self._lost_at = 0
