"""The report of a full sync, for its command, the schedule and the observers."""

from dataclasses import dataclass

from marketplace_sync.mirror.runs import Progress
from marketplace_sync.models import SyncRun


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The result of a full sync: its run, its counts and its consequences."""

    run_id: int
    state: SyncRun.State
    progress: Progress
    begun: int  # the arrival at which it began
    clean: bool = False
    again: bool = False  # a second sync has to prove absences
    held_count: int = 0  # removals on hold
    held_reason: str = ""
    unclean_reason: str = ""
    error: str = ""  # "" unless it failed
    retry_after: float | None = None  # seconds that the marketplace asked for; `None`: none
    refused_token: bool = False
    unread: str = ""  # why not every page was read; "" where all were

    @property
    def refused(self) -> int:
        """Return how many listed records could not be read or stored."""
        return self.progress.refused
