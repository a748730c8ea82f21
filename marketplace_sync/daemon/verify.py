"""Compares mirror and marketplace: a fresh listing, and a second look at whatever differs, for the market moves."""

from collections import Counter

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import read_pages
from marketplace_sync.engine.merge import HeldSkill
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.absence import SeenIds
from marketplace_sync.mirror.compare import (
    Difference,
    compare_categories,
    compare_skills,
    differing_fields,
    held_slot,
    unlisted_skills,
)
from marketplace_sync.protocol.events import SkillPage
from marketplace_sync.protocol.listing import records_of
from marketplace_sync.upstream.faults import MalformedAnswer
from marketplace_sync.upstream.market import MarketClient

# Up to this many differences are looked at again one by one: a minute's budget of single fetches.
MAX_SINGLE_LOOKS = 20


class Verifier:
    """Reads the marketplace and the mirror; writes nothing.

    `would` counts what an ordinary pass would do, by "created", "updated", "unchanged", "stale", "deleted".
    Raises `UpstreamError` when the marketplace can't be read.
    """

    def __init__(self, market: MarketClient, database: Database, *, page_size: int, max_pages: int) -> None:
        self._market = market
        self._database = database
        self._page_size = page_size
        self._max_pages = max_pages
        self.would: Counter[str] = Counter()
        self.listed = 0

    async def difference(self) -> Difference:
        """What differs, looked at twice."""
        first = await self.look()
        if first.level:
            return first
        if len(first.skills) <= MAX_SINGLE_LOOKS:
            return await self._look_at_each(first)
        return _in_both(first, await self.look())

    async def look(self) -> Difference:
        """What differs at one look."""
        found = Difference()
        self.would = Counter()
        categories = await self._market.categories()
        await self._database.control(compare_categories, categories.categories, found)
        found.refused += [str(row.refusal) for row in categories.broken]
        # A category whose row can't be read is listed all the same.
        found.extra_categories -= {row.refusal.key for row in categories.broken if row.refusal.key}
        seen = SeenIds()
        plan = PagePlan(self._page_size, self._max_pages)

        async def take(number: int, _: int, page: SkillPage) -> None:
            new = [record for record in records_of(page) if seen.add(record.skill_id)]
            broken = sum(seen.add(row.refusal.key) for row in page.broken if row.refusal.key is not None)
            plan.read(number, page, new=len(new) + broken)
            found.refused += [f"{row.refusal.key or 'no readable id'}: {row.refusal}" for row in page.broken]
            self.would += await self._database.control(compare_skills, new, found)

        await read_pages(self._market, plan, lambda: 0, take)
        if plan.fault:
            raise MalformedAnswer(f"the listing can't be read whole: {plan.fault}")
        self.listed = len(seen)
        found.extra = await self._database.control(unlisted_skills, seen)
        self.would["deleted"] = len(found.extra)
        return found

    async def _look_at_each(self, first: Difference) -> Difference:
        """A second look by single fetches, and one at the categories where those differ."""
        second = Difference(refused=first.refused)
        for skill_id in sorted(first.skills):
            try:
                record = await self._market.skill(skill_id)
            except MalformedAnswer as fault:
                # The listing was read whole; what it showed of this one stands.
                second.refused.append(f"{skill_id}: {fault.reason}")
                _keep_skill(first, skill_id, second)
                continue
            held = await self._database.control(held_slot, skill_id)
            if record is None:
                if isinstance(held, HeldSkill):
                    second.extra.add(skill_id)
            elif not isinstance(held, HeldSkill):
                second.missing.add(skill_id)
            elif fields := differing_fields(record, held):
                second.different[skill_id] = fields
        if first.categories:
            again = Difference()
            page = await self._market.categories()
            await self._database.control(compare_categories, page.categories, again)
            _keep_categories(first, again, second)
        return second


def _keep_skill(first: Difference, skill_id: str, into: Difference) -> None:
    into.missing |= first.missing & {skill_id}
    into.extra |= first.extra & {skill_id}
    into.different |= {key: fields for key, fields in first.different.items() if key == skill_id}


def _in_both(first: Difference, second: Difference) -> Difference:
    """What two looks agree on."""
    both = Difference(
        missing=first.missing & second.missing,
        extra=first.extra & second.extra,
        different=_common(first.different, second.different),
        refused=second.refused,
    )
    _keep_categories(first, second, both)
    return both


def _keep_categories(first: Difference, second: Difference, into: Difference) -> None:
    into.missing_categories = first.missing_categories & second.missing_categories
    into.extra_categories = first.extra_categories & second.extra_categories
    into.different_categories = _common(first.different_categories, second.different_categories)


def _common(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: second[key] for key in first if key in second}
