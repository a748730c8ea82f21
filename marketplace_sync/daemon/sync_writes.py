"""Apply events in the name of one sync run, and count what they changed."""

from collections.abc import Sequence

from marketplace_sync.daemon.session import Session
from marketplace_sync.mirror.absence import BegunRun
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Event, Item, SkillAbsent
from marketplace_sync.mirror.runs import Progress
from marketplace_sync.models import FeedChange
from marketplace_sync.protocol.events import SkillRecord

# Removals are applied in batches of this many, like pages.
_REMOVAL_BATCH = 500


class SyncWrites:
    """The writes of one run; `progress` counts their effects. Implements `daemon.absence.RunWriter`.

    A `repair` takes the marketplace's content whatever the times are, for a person asked for it.
    """

    def __init__(self, session: Session, run: BegunRun, *, repair: bool) -> None:
        self.session = session
        self.run = run
        self.progress = Progress()
        self._repair = repair
        self._source = FeedChange.Source.REPAIR if repair else FeedChange.Source.LISTING
        self._fleeting_before = session.queue.fleeting

    @property
    def nothing_fleeting(self) -> bool:
        """Return whether no skill has come and gone within one batch since the run began."""
        return self.session.queue.fleeting == self._fleeting_before

    def arrived(self, event: Event, arrival: int) -> Arrived:
        """Return `event` with what this run adds to it."""
        return Arrived(
            event, arrival, self._source, polled=True, forced=self._repair, run_id=self.run.id, by_row=self.run.by_row
        )

    async def submit(self, items: Sequence[Item]) -> list[Effect]:
        """Return the effects of `items` once they are committed. The caller counts them."""
        return await self.session.queue.submit(items)

    async def found(self, record: SkillRecord, arrival: int) -> None:
        self.count(await self.submit([self.arrived(record, arrival)]))

    async def remove_skills(self, skill_ids: Sequence[str], arrival: int) -> None:
        items = [self.arrived(SkillAbsent(skill_id), arrival) for skill_id in skill_ids]
        for start in range(0, len(items), _REMOVAL_BATCH):
            effects = await self.submit(items[start : start + _REMOVAL_BATCH])
            self.progress.removed += effects.count(Effect.REMOVED)

    async def remove_categories(self, names: Sequence[str], arrival: int) -> None:
        await self.submit([self.arrived(CategoryAbsent(name), arrival) for name in names])

    def count(self, effects: Sequence[Effect]) -> None:
        """Count the effects of skills."""
        self.progress.refused += effects.count(Effect.REFUSED)
        self.progress.created += effects.count(Effect.CREATED)
        self.progress.updated += effects.count(Effect.UPDATED)
        self.progress.unchanged += effects.count(Effect.UNCHANGED)
        self.progress.stale += effects.count(Effect.STALE)

    def count_categories(self, effects: Sequence[Effect]) -> None:
        """Count the effects of categories: only those that were refused."""
        refused = effects.count(Effect.REFUSED)
        self.progress.refused += refused
        self.progress.refused_categories += refused
