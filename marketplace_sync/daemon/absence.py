"""Settles what a listing lacks: what is proved to be gone is removed, the rest is asked for, held or left (law 5).

`engine.absence` judges, `mirror.absence` looks up what the mirror has more than the listing; here the proofs are
fetched, and what the last clean pass lacked is remembered. What follows is applied by the pass itself.
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
    """What a pass that began at arrival `begun` found named, all of it in the mirror by now.

    `found_by`: that pass, where each of `skills` was in the mirror when its batch was planned; else `None`.
    `categories`: `None` where a broken row hides a name, so that none is known to lack.
    """

    begun: int
    found_by: BegunRun | None
    skills: SeenIds
    categories: Sequence[str] | None
    listing: Listing


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of it. `held` wait for a person, for `held_reason`; `again`: a second pass has to prove absences.

    `relisted`: skills whose removal was dismissed and that are listed again.

    `unclean_reason`: why the listing proved nothing, "" where it was clean.
    """

    unclean_reason: str
    held: frozenset[str]
    held_reason: str
    again: bool
    relisted: frozenset[str]


class Applies(Protocol):
    """The pass, which writes in its own name and counts what became of it. Each returns once all is committed."""

    async def found(self, record: SkillRecord, arrival: int) -> None:
        """A skill that the listing lacked is there all the same: so it was answered."""

    async def remove_skills(self, skill_ids: Sequence[str], arrival: int) -> None:
        """These are gone, as known since `arrival`."""

    async def remove_categories(self, names: Sequence[str], arrival: int) -> None:
        """These are gone, as known since `arrival`."""


class Absences:
    """Settles the passes of one mirror one after the other, and remembers between two what the first one lacked.

    `announced`: skills that the stream told to be gone in messages that could not be applied. `repair`: a person asked
    for level, so nothing is held.
    """

    def __init__(
        self, market: MarketClient, database: Database, arrivals: Arrivals, announced: Container[str], *, repair: bool
    ) -> None:
        self._market = market
        self._database = database
        self._arrivals = arrivals
        self._announced = announced
        self._repair = repair
        # Skills that the last clean pass lacked, and the arrival at which that pass began.
        self._lacked: dict[str, int] = {}
        self._asked_last = ""  # for its proof, in whatever pass

    async def settle(self, named: Named, by: Applies, *, approved: frozenset[str]) -> Settled:
        """Remove what is proved to be gone. `approved`: skills whose removal a person let go ahead.

        A proof that can't be had is left to the next pass; categories that can't be read again raise `UpstreamError`.
        """
        unclean = unclean_reason(named.listing)
        dismissed = await self._database.control(dismissed_skills)
        verdict, unproved = await self._settle_skills(named, by, approved, dismissed, clean=not unclean)
        await self._settle_categories(named, by)
        return Settled(
            unclean_reason=unclean, held=verdict.hold, held_reason=verdict.hold_reason, again=bool(unproved),
            relisted=frozenset(filter(named.skills.__contains__, dismissed)),
        )  # fmt: skip

    async def _settle_skills(
        self, named: Named, by: Applies, approved: frozenset[str], dismissed: frozenset[str], *, clean: bool
    ) -> tuple[Verdict, frozenset[str]]:
        """The verdict, carried out, and what a second pass has yet to prove."""
        absent, size = await self._database.control(absent_skills, named.skills, named.begun, named.found_by)
        for skill_id in dismissed - approved:
            # The others are judged as if this one were not there. The stream's word that it went counts, as always.
            if not self._repair and skill_id not in self._announced and absent.pop(skill_id, None) is not None:
                size -= 1
        # One that was heard of after that pass had begun was not lacking then: its proof begins anew.
        lacked_twice = {skill_id for skill_id, heard in absent.items() if heard <= self._lacked.get(skill_id, -1)}
        verdict = judge(
            absent,
            clean=clean,
            listed=len(named.skills),
            mirror_size=size,
            announced=self._announced,
            absent_before=lacked_twice,
            approved=frozenset(absent) if self._repair else approved,
            asked_last=self._asked_last,
        )
        await by.remove_skills(sorted(verdict.remove), named.begun)
        unproved = set(verdict.again)
        for asked, skill_id in enumerate(verdict.prove):
            if not await self._prove(skill_id, by):
                # One that can't be asked for now takes its four tries; twenty of them would hold up every other pass.
                unproved.update(verdict.prove[asked:])
                break
        # An unclean pass proves nothing, and takes nothing of what a clean one before it proved.
        if clean:
            self._lacked = dict.fromkeys(unproved, named.begun)
        else:
            self._lacked = {skill_id: self._lacked[skill_id] for skill_id in lacked_twice}
        return verdict, frozenset(unproved) if clean else frozenset()

    async def _prove(self, skill_id: str, by: Applies) -> bool:
        """Ask for one absent skill; whether the answer settled it."""
        if self._market.single_fetch_wait() > 0:
            return False
        self._asked_last = skill_id
        try:
            arrival, record = await requested(
                self._arrivals.next, lambda begun: self._market.skill(skill_id, begun=begun)
            )
        except UpstreamError as fault:
            log.warning("proof_failed", skill_id=skill_id, reason=fault.reason)
            return False
        if record is None:
            await by.remove_skills([skill_id], arrival)
        else:
            await by.found(record, arrival)
        return True

    async def _settle_categories(self, named: Named, by: Applies) -> None:
        """A category that no skill names goes when two listings lack it; one that proves nothing is no such listing."""
        listed = named.categories
        if not listed or not await self._database.control(absent_categories, listed, named.begun):
            return
        arrival, page = await requested(self._arrivals.next, lambda begun: self._market.categories(begun=begun))
        names = named_categories(page)
        if not names:
            return
        absent = await self._database.control(absent_categories, [*names, *listed], named.begun)
        await by.remove_categories(absent, arrival)


def named_categories(page: CategoryPage) -> list[str] | None:
    """The categories that a listing names; `None` where a broken row hides a name."""
    broken = [row.refusal.key for row in page.refused]
    if None in broken:
        return None
    return [record.name for record in page.categories] + [name for name in broken if name is not None]
