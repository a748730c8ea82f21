"""Reads a listing page by page, several at once where its totals are known."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.protocol.events import SkillPage
from marketplace_sync.upstream.market import MarketClient

T = TypeVar("T")


async def requested(arrive: Callable[[], int], ask: Callable[[Callable[[], None]], Awaitable[T]]) -> tuple[int, T]:
    """Send a request; its answer, and the answer's arrival: when its last try was put on the wire (law 2)."""
    arrivals: list[int] = []
    answer = await ask(lambda: arrivals.append(arrive()))
    return arrivals[-1], answer


def nothing_readable(read: int, refused: int, first: str) -> str:
    """Why a listing gave nothing although it was answered: every record was refused. "" where it gave something.

    An empty listing is not such a one. `first`: which record was refused first, and why.
    """
    if read or not refused:
        return ""
    return f"none of the {refused} listed skills can be read. The first one: {first}"


async def read_pages(
    market: MarketClient,
    plan: PagePlan,
    arrive: Callable[[], int],
    take: Callable[[int, int, SkillPage], Awaitable[None]],
) -> None:
    """Read what `plan` asks for; `take(number, arrival, page)` has to report each to the plan.

    A page that can't be had ends the reading with its `UpstreamError`: half a listing is none.
    """
    under_way: set[asyncio.Task[tuple[int, int, SkillPage]]] = set()
    done: set[asyncio.Task[tuple[int, int, SkillPage]]] = set()

    async def page(number: int) -> tuple[int, int, SkillPage]:
        arrival, answer = await requested(
            arrive,
            lambda begun: market.skill_page(number, page_size=plan.page_size, begun=begun),
        )
        return number, arrival, answer

    try:
        while True:
            while (number := plan.next_page()) is not None:
                under_way.add(asyncio.create_task(page(number), name=f"page {number}"))
            if not under_way:
                return
            done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            while done:
                # Nothing here holds a page once it is taken: with a thousand rows it is some 5 MiB.
                await take(*done.pop().result())
    finally:
        for task in under_way:
            task.cancel()
        # Those that failed together with the one that is raised are looked at too, or asyncio complains of them.
        await asyncio.gather(*under_way, *done, return_exceptions=True)
