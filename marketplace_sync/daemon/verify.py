"""Compare the mirror with the marketplace, twice where they differ: a record may change while the listing is read."""

from collections import Counter

from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.reading import nothing_readable, read_pages
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror.absence import SeenIds
from marketplace_sync.mirror.compare import (
    Difference,
    compare_categories,
    compare_refused,
    compare_skill,
    compare_skills,
    unlisted_skills,
)
from marketplace_sync.mirror.search_index import misfiled_skills
from marketplace_sync.protocol.events import SkillPage
from marketplace_sync.upstream.errors import MalformedResponseError, NothingReadableError
from marketplace_sync.upstream.market import MarketClient

# Up to this many differences are checked again one by one: the budget of single fetches for one minute.
MAX_SINGLE_LOOKS = 20


class Verifier:
    """Read the marketplace and the mirror, and write nothing.

    `would` counts what a full sync would do, by "created", "updated", "unchanged", "stale", "deleted".
    Methods raise `UpstreamError` if the marketplace cannot be read, also if every record is refused.
    """

    def __init__(self, market: MarketClient, database: Database, *, page_size: int, max_pages: int) -> None:
        self._market = market
        self._database = database
        self._page_size = page_size
        self._max_pages = max_pages
        self.would: Counter[str] = Counter()
        self.listed = 0

    async def difference(self) -> Difference:
        """Return what differs at two looks, and the skills that search does not find by their rows."""
        found = await self._market_difference()
        found.misfiled = await self._database.survey(misfiled_skills)
        return found

    async def _market_difference(self) -> Difference:
        first = await self.look()
        if not first.skills and not first.categories:
            return first
        if len(first.skills) <= MAX_SINGLE_LOOKS:
            return await self._look_at_each(first)
        return _in_both(first, await self.look())

    async def look(self) -> Difference:
        """Return what differs at one look."""
        found = Difference()
        self.would = Counter()
        categories = await self._market.categories()
        await self._database.control(compare_categories, categories.categories, found)
        found.refused += [f"category {row.refusal.key or 'without a readable name'}: {row.refusal}"
                          for row in categories.refused]  # fmt: skip
        # A category whose row cannot be read is listed all the same.
        found.extra_categories -= {row.refusal.key for row in categories.refused if row.refusal.key}
        seen = SeenIds()
        plan = PagePlan(self._page_size, self._max_pages)
        skills, read = 0, 0

        async def take(number: int, _: int, page: SkillPage) -> None:
            nonlocal skills, read
            new = [record for record in page.skills if seen.add(record.skill_id)]
            skills += page.rows
            read += len(page.skills)
            found.unnamed += sum(row.refusal.key is None for row in page.refused)
            broken = [row.refusal.key for row in page.refused if row.refusal.key is not None]
            plan.read(number, page, new=len(new) + sum(map(seen.add, broken)))
            found.refused += [f"{row.refusal.key or 'no readable id'}: {row.refusal}" for row in page.refused]
            self.would += await self._database.control(compare_skills, new, found)
            await self._database.control(compare_refused, broken, found)

        await read_pages(self._market, plan, lambda: 0, take)
        if plan.problem:
            raise MalformedResponseError(f"part of the listing cannot be read: {plan.problem}")
        self.listed = len(seen)
        named = next(iter(found.refused[len(categories.refused) :]), "")
        if reason := nothing_readable(read, skills - read, named):
            raise NothingReadableError(reason)
        found.extra = await self._database.control(unlisted_skills, seen)
        self.would["deleted"] = len(found.extra)
        return found

    async def _look_at_each(self, first: Difference) -> Difference:
        """Look again by single fetches, and at the categories if they differ."""
        second = Difference(refused=first.refused, unnamed=first.unnamed, later=first.later)
        for skill_id in sorted(first.skills):
            try:
                record = await self._market.skill(skill_id)
            except MalformedResponseError as error:
                # The single fetch shows nothing, so the difference that the listing showed stays.
                second.refused.append(f"{skill_id}: {error.reason}")
                _keep_skill(first, skill_id, second)
                continue
            await self._database.control(compare_skill, skill_id, record, second)
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
    """Return what both looks found."""
    both = Difference(
        missing=first.missing & second.missing,
        extra=first.extra & second.extra,
        different=_common(first.different, second.different),
        later=first.later | second.later,
        refused=second.refused,
        unnamed=second.unnamed,
    )
    if second.unnamed:
        both.extra = set()  # a record without a readable id may be any of these
    _keep_categories(first, second, both)
    return both


def _keep_categories(first: Difference, second: Difference, into: Difference) -> None:
    into.missing_categories = first.missing_categories & second.missing_categories
    into.extra_categories = first.extra_categories & second.extra_categories
    into.different_categories = _common(first.different_categories, second.different_categories)
    into.later_categories = first.later_categories | second.later_categories


def _common(first: dict[str, list[str]], second: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: second[key] for key in first if key in second}
