"""Build the pages of the skill listing, with faults."""

from collections.abc import Iterable, Mapping
from typing import Any

from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.marketplace import Marketplace, Record

# The longest page that the marketplace sends, whatever is requested.
MAX_PAGE_SIZE = 1_000

_SKILL_ALIASES = {"skill_id": "id", "name": "skill_name", "average_rating": "avg_rating"}
_CATEGORY_ALIASES = {"name": "category"}
# The skill that page-drift adds and removes. A single id, so that at most one such skill stays in the catalogue.
DRIFT_ID = "drift-in-front"


def matching(skills: Mapping[str, Record], query: str, category: str) -> list[Record]:
    """Return the skills of a listing, the newest first, so a skill created meanwhile shifts every page."""
    words = query.casefold()
    return [
        skill
        for skill in reversed(skills.values())  # type: ignore[call-overload]
        if (not category or skill.get("category") == category)
        and (not words or any(words in text.casefold() for text in _searched(skill)))
    ]


def _searched(skill: Record) -> Iterable[str]:
    yield str(skill.get("name") or "")
    yield str(skill.get("description") or "")
    yield from map(str, skill.get("tags") or ())


def page_of(rows: list[Record], page: int, page_size: int, faults: FaultSet, target: str) -> Any:
    """Return the body of page `page` of `rows`, as documented or changed by the faults that are set."""
    if faults.take("empty-listing", target) is not None:
        rows = []
    if (shrunken := faults.take("shrunken-listing", target)) is not None:
        rows = rows[: int(len(rows) * shrunken["share"])]
    total = len(rows)
    total_pages = -(-total // page_size)
    shown = rows[(page - 1) * page_size : page * page_size]
    # With one or two pages the last is empty, or the fault would affect large catalogues only.
    hole = 1 < page < total_pages if total_pages > 2 else page == total_pages
    if hole and faults.take("partial-listing", target) is not None:
        shown = []
    if faults.take("aliases", target) is not None:
        shown = [alias_skill(skill) for skill in shown]
    if faults.take("bare-list", target) is not None:
        return shown
    body: dict[str, Any] = {"skills": shown, "page": page, "page_size": page_size}
    if faults.take("no-totals", target) is None:
        body |= {"total": total, "total_pages": total_pages}
    return body


def drift(market: Marketplace, *, announce: bool) -> None:
    """Add a skill in front of the listing, or remove it when it is there."""
    if DRIFT_ID in market.skills:
        market.delete_skill(DRIFT_ID, announce=announce)
    else:
        market.put_skill({"skill_id": DRIFT_ID, "name": "Drift", "version": "1.0.0"}, announce=announce)


def alias_skill(skill: Record) -> Record:
    return {_SKILL_ALIASES.get(name, name): value for name, value in skill.items()}


def alias_category(category: Record) -> Record:
    return {_CATEGORY_ALIASES.get(name, name): value for name, value in category.items()}
