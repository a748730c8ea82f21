"""Generate what the marketplace sends in a measurement: the same for the daemon and for every other contender.

A catalogue of the simulator's own made-up skills (1 to 2 KB each, several languages, eight categories), and a history
over it: each message brings a whole skill, created where its id comes for the first time. An update changes what
updates change in life: version, a line of code and the time always, the rating figures in one of two, the description
in one of ten; name, tags and category stay.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from marketplace_sync.simulator.catalog import describe, generate
from marketplace_sync.simulator.wire import encode, write_time

SEED = 20260101
# In the past of every clock, so that no time is refused for being ahead.
DAWN = datetime(2026, 1, 15, tzinfo=UTC)


def write_catalog(path: Path, skills: int) -> None:
    """Write a catalogue as JSON lines."""
    with path.open("wb") as lines:
        for skill in generate(skills, SEED, DAWN).skills:
            lines.write(encode(skill) + b"\n")


def write_messages(path: Path, count: int, over: int) -> dict[str, str]:
    """Write `count` messages about `over` skills as JSON lines; return the last version of each skill.

    As long as `count` is no more than `over`, no skill comes twice.
    """
    last: dict[str, str] = {}
    with path.open("wb") as lines:
        for message in _history(count, over):
            last[message["data"]["skill_id"]] = message["data"]["version"]
            lines.write(encode(message) + b"\n")
    return last


def _history(count: int, over: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(SEED)
    skills = generate(over, SEED, DAWN).skills
    numbers = rng.sample(range(over), count) if count <= over else [rng.randrange(over) for _ in range(count)]
    for step, number in enumerate(numbers, 1):
        skill = skills[number]
        at = write_time(DAWN + timedelta(seconds=step))
        changed = {"version": f"2.{step}.0", "code": f"{skill['code']}# {step}\n", "updated_at": at}
        if step % 2:
            changed |= {"average_rating": round(rng.uniform(1, 5), 2), "rating_count": (skill["rating_count"] or 0) + 1}
        if step % 10 == 0:
            changed["description"] = describe(rng)
        yield {"type": "skill_update", "data": {**skill, **changed}, "timestamp": at}
