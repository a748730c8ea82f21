"""Read a listing page by page, several in parallel where its totals are known."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.protocol.events import SkillPage
from marketplace_sync.upstream.market import MarketClient

T = TypeVar("T")


async def requested(arrive: Callable[[], int], ask: Callable[[Callable[[], None]], Awaitable[T]]) -> tuple[int, T]:
    """Send a request; return its arrival, which is when its last attempt was sent (law 2), and its answer."""
    arrivals: list[int] = []
    answer = await ask(lambda: arrivals.append(arrive()))
    return arrivals[-1], answer


def nothing_readable(read: int, refused: int, first: str) -> str:
    """Return why a listing with records cannot be used: every one was refused. "" where some were read.

    An empty listing is no such case. `first`: which record was refused first, and why.
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
    """Read the pages that `plan` asks for, and call `take(number, arrival, page)`, which must report each to the plan.

    Raises the `UpstreamError` of the first page that cannot be read: half a listing proves nothing.
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
                # Keep no page after it is taken: one of a thousand rows is about 5 MiB.
                await take(*done.pop().result())
    finally:
        for task in under_way:
            task.cancel()
        # Retrieve the errors of the other tasks too, or asyncio logs them as never retrieved.
        await asyncio.gather(*under_way, *done, return_exceptions=True)
