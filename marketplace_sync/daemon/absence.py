"""Settle which absent skills and categories are removed, fetched, put on hold or left to the next sync (law 5).

`mirror.absence` finds what the mirror has and the listing does not; `engine.absence` decides what to do about it. This
module fetches the proofs and remembers what the last clean sync did not list. The sync run writes the removals.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from marketplace_sync.daemon.arrivals import Arrivals
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import requested
from marketplace_sync.engine.absence import Listing, Verdict, judge, unclean_reason
from marketplace_sync.mirror.absence import BegunRun, SeenIds, absent_categories, absent_skills, dismissed_skills
from marketplace_sync.protocol.events import CategoryPage, SkillRecord
from marketplace_sync.upstream.errors import UpstreamError
from marketplace_sync.upstream.market import MarketClient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The skills and categories that a listing named. All are applied. `begun`: the arrival when the full sync began.

    `found_by`: the run, if each of `skills` was stored when its batch was planned; else `None`.
    `categories`: `None` if a broken row hides a name, so that no category is known to be absent.
    """

    begun: int
    found_by: BegunRun | None
    skills: SeenIds
    categories: Sequence[str] | None
    listing: Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The consequences of a listing.

    `unclean_reason`: why it proved nothing, "" if it was clean.
    `held_removals`: skills whose removal is on hold for approval, for `held_reason`.
    `again`: a second sync has to prove absences.
    `relisted`: skills whose removal was dismissed, and that are listed again.
    """

    unclean_reason: str
    held_removals: frozenset[str]
    held_reason: str
    again: bool
    relisted: frozenset[str]


class RunWriter(Protocol):
    """The sync run, which writes in its own name and counts the effects. Each method returns after the commit."""

    async def found(self, record: SkillRecord, arrival: int) -> None:
        """Store a skill that the listing did not name, and a single fetch found."""

    async def remove_skills(self, skill_ids: Sequence[str], arrival: int) -> None:
        """Remove skills that are known to be gone since `arrival`."""

    async def remove_categories(self, names: Sequence[str], arrival: int) -> None:
        """Remove categories that are known to be gone since `arrival`."""


class Absences:
    """Settle the full syncs of one mirror, one after the other, and remember what the last one did not list.

    `announced`: skills whose removal the stream reported in messages that could not be applied. `repair`: a person
    asked for a mirror that is in sync, so no removal is put on hold.
    """

    def __init__(
        self, market: MarketClient, database: Database, arrivals: Arrivals, announced: Container[str], *, repair: bool
    ) -> None:
        self._market = market
        self._database = database
        self._arrivals = arrivals
        self._announced = announced
        self._repair = repair
        # Skills that the last clean sync did not list, and the arrival at which that sync began.
        self._absent_before: dict[str, int] = {}
        self._fetched_last = ""  # the skill whose proof was fetched last, in whichever sync

    async def settle(self, named: Named, run: RunWriter, *, approved: frozenset[str]) -> Settled:
        """Remove what is proved to be gone. `approved`: skills whose removal a person approved.

        A proof that cannot be fetched is left to the next sync. Raise `UpstreamError` if the categories cannot be read
        again.
        """
        unclean = unclean_reason(named.listing)
        dismissed = await self._database.control(dismissed_skills)
        verdict, unproved = await self._settle_skills(named, run, approved, dismissed, clean=not unclean)
        await self._settle_categories(named, run)
        return Settled(
            unclean_reason=unclean, held_removals=verdict.needs_approval, held_reason=verdict.approval_reason,
            again=bool(unproved),
            relisted=frozenset(filter(named.skills.__contains__, dismissed)),
        )  # fmt: skip

    async def _settle_skills(
        self, named: Named, run: RunWriter, approved: frozenset[str], dismissed: frozenset[str], *, clean: bool
    ) -> tuple[Verdict, frozenset[str]]:
        """Carry out the verdict. Return it, and the skills whose absence a second sync has yet to prove."""
        absent, size = await self._database.control(absent_skills, named.skills, named.begun, named.found_by)
        for skill_id in dismissed - approved:
            # A dismissed skill counts neither as absent nor in the mirror's size, unless its removal was announced.
            if not self._repair and skill_id not in self._announced and absent.pop(skill_id, None) is not None:
                size -= 1
        # A skill that was reported after that sync had begun was not absent then: its proof begins again.
        absent_twice = {skill_id for skill_id, at in absent.items() if at <= self._absent_before.get(skill_id, -1)}
        verdict = judge(
            absent,
            clean=clean,
            listed=len(named.skills),
            mirror_size=size,
            announced=self._announced,
            absent_before=absent_twice,
            approved=frozenset(absent) if self._repair else approved,
            asked_last=self._fetched_last,
        )
        await run.remove_skills(sorted(verdict.remove), named.begun)
        unproved = frozenset(verdict.again) | await self._prove(verdict.prove, run)
        # An unclean sync proves nothing, and takes back nothing that a clean one before it proved.
        if clean:
            self._absent_before = dict.fromkeys(unproved, named.begun)
        else:
            self._absent_before = {skill_id: self._absent_before[skill_id] for skill_id in absent_twice}
        return verdict, unproved if clean else frozenset()

    async def _prove(self, skill_ids: Sequence[str], run: RunWriter) -> frozenset[str]:
        """Fetch absent skills one by one. Return those whose absence is not settled."""
        for number, skill_id in enumerate(skill_ids):
            if not await self._prove_one(skill_id, run):
                # A fetch that fails takes four tries; twenty of them would delay every other sync.
                return frozenset(skill_ids[number:])
        return frozenset()

    async def _prove_one(self, skill_id: str, run: RunWriter) -> bool:
        """Fetch one absent skill. Return whether the answer settled its absence."""
        if self._market.single_fetch_wait() > 0:
            return False
        self._fetched_last = skill_id
        try:
            arrival, record = await requested(
                self._arrivals.next, lambda begun: self._market.skill(skill_id, begun=begun)
            )
        except UpstreamError as error:
            log.warning("proof_failed", skill_id=skill_id, reason=error.reason)
            return False
        if record is None:
            await run.remove_skills([skill_id], arrival)
        else:
            await run.found(record, arrival)
        return True

    async def _settle_categories(self, named: Named, run: RunWriter) -> None:
        """Remove categories that neither a skill nor two listings named. A hidden name proves nothing."""
        listed = named.categories
        if not listed or not await self._database.control(absent_categories, listed, named.begun):
            return
        arrival, page = await requested(self._arrivals.next, lambda begun: self._market.categories(begun=begun))
        names = named_categories(page)
        if not names:
            return
        absent = await self._database.control(absent_categories, [*names, *listed], named.begun)
        await run.remove_categories(absent, arrival)


def named_categories(page: CategoryPage) -> list[str] | None:
    """Return the categories that a listing names, or `None` if a broken row hides a name."""
    broken = [row.refusal.key for row in page.refused]
    if None in broken:
        return None
    return [record.name for record in page.categories] + [name for name in broken if name is not None]
