"""Whether the mirror has all that the marketplace reported, as far as the daemon knows.

A record that was refused, or a message that was lost, is content that the mirror does not have. Until a fetch or a full
sync brings it, no moment may be named as of which the mirror is complete (`X-Mirror-As-Of`).
"""

from collections.abc import Callable

from marketplace_sync.daemon.full_sync import SyncReport

# More refused skills than this count as one loss: only a full sync brings them.
_MAX_REFUSED = 10_000


class Completeness:
    """What is known to be missing. `arrive` gives the arrival of what happens now (law 2)."""

    def __init__(self, arrive: Callable[[], int]) -> None:
        self._arrive = arrive
        self._refused: dict[str, int] = {}
        self._lost_at = 0  # 0: nothing was lost
        self._left_out_by_sync = False

    @property
    def complete(self) -> bool:
        """Nothing is known to be missing."""
        return not (self._refused or self._lost_at or self._left_out_by_sync)

    def lost(self) -> None:
        """A message was not applied, and only a full sync brings what it reported."""
        self._lost_at = self._arrive()

    def refused(self, skill_id: str) -> None:
        """A message about this skill was not applied, and the skill as fetched cannot be read either."""
        if len(self._refused) >= _MAX_REFUSED:
            self.lost()
        else:
            self._refused[skill_id] = self._arrive()

    def fetched(self, skill_id: str) -> None:
        """This skill is in the mirror as the marketplace has it now, or is gone from both."""
        self._refused.pop(skill_id, None)

    def synced(self, report: SyncReport) -> None:
        """A full sync has ended. One that read everything has brought what was missing before it began."""
        if report.refused or report.unread:
            self._left_out_by_sync = True
        elif report.clean and not report.again:
            self._left_out_by_sync = False
            self._refused = {skill_id: at for skill_id, at in self._refused.items() if at > report.begun}
            if self._lost_at <= report.begun:
                self._lost_at = 0
