"""Change a marketplace at random."""

import random
from collections.abc import Awaitable, Callable, Iterable

from marketplace_sync.simulator.catalog import describe, generate
from marketplace_sync.simulator.marketplace import Marketplace, Record
from marketplace_sync.simulator.pace import Pace

# Out of 100 changes. "exist": a skill is deleted or created.
_WEIGHTS = {"update": 60, "rate": 25, "exist": 12, "category": 3}
# The average number of absent skills, at least, where there is no reserve.
_FEWEST_ABSENT = 5
# A third of the updates contain only what changed, as the protocol allows.
_SHORT_SHARE = 1 / 3
# Messages that are sent before we wait for slow readers.
_EVENTS_BETWEEN_DRAINS = 32


class Churn:
    """Changes a marketplace at random, the same way for the same seed.

    Created skills come from `reserve` and from those deleted before. So a restarted simulator has nearly the same ids,
    and the catalogue does not grow without bound.
    """

    def __init__(self, market: Marketplace, reserve: Iterable[Record] = (), seed: int = 0) -> None:
        self._market = market
        self._absent = [_without_times(record) for record in reserve]
        # The number of absent skills varies between 0 and twice this, so the catalogue keeps its size on average.
        self._usual_absent = len(self._absent) or max(_FEWEST_ABSENT, len(market.skills) // 20)
        self._random = random.Random(f"churn {seed}")

    async def run(self, rate: float, drain: Callable[[], Awaitable[None]]) -> None:
        """Make `rate` changes per second until cancelled; `drain` waits for slow readers."""
        pace = Pace(rate)
        while True:
            await pace.turn()
            self.step()
            await drain()

    def step(self) -> None:
        """Make one change, if there is something to change."""
        market = self._market
        kind = self._random.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
        if kind == "category":
            self._change_category()
        elif not market.skills:
            self._create()
        elif kind == "exist":
            if self._random.random() * 2 * self._usual_absent < len(self._absent):
                self._create()
            else:
                self._delete()
        elif kind == "rate":
            market.rate(self._any_skill(), self._random.randint(1, 5), with_average=self._random.random() < 0.9)
        else:
            self._update()

    def _any_skill(self) -> str:
        return self._random.choice([*self._market.skills])

    def _create(self) -> None:
        if self._absent:
            self._market.put_skill(self._absent.pop(self._random.randrange(len(self._absent))))

    def _delete(self) -> None:
        # The last skill stays: an empty catalogue is a separate fault.
        if len(self._market.skills) > 1:
            skill_id = self._any_skill()
            self._absent.append(_without_times(self._market.skills[skill_id]))
            self._market.delete_skill(skill_id)

    def _change_category(self) -> None:
        if self._market.categories:
            name = self._random.choice([*self._market.categories])
            self._market.put_category({"name": name, "description": describe(self._random)})

    def _update(self) -> None:
        stored = self._market.skills[self._any_skill()]
        major, _, patch = str(stored.get("version") or "1.0.0").rpartition(".")
        version = f"{major}.{int(patch) + 1}" if patch.isdigit() else "1.0.0"
        news = {"version": version, "description": describe(self._random)}
        short = self._random.random() < _SHORT_SHARE
        whole = {"skill_id": stored["skill_id"], "name": stored.get("name") or "Unnamed"}
        self._market.put_skill({**(whole if short else stored), **news})


async def flood(market: Marketplace, drain: Callable[[], Awaitable[None]], count: int) -> None:
    """Update the existing skills `count` times, as fast as the readers take it."""
    if not market.skills:
        for record in generate(100, seed=0, now=market.now()).skills:
            market.put_skill(record)
    skill_ids = [*market.skills]
    pace = Pace(0)
    for number in range(count):
        await pace.turn()
        # A skill may be deleted while the flood lasts.
        skill = market.skills.get(skill_ids[number % len(skill_ids)])
        if skill is not None:
            news = {"skill_id": skill["skill_id"], "name": skill.get("name") or "Unnamed", "version": f"9.0.{number}"}
            market.put_skill(news)
        if number % _EVENTS_BETWEEN_DRAINS == 0:
            await drain()


def _without_times(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in ("created_at", "updated_at")}
