"""Absent skills: if a full sync found all that it listed, counting gives the same answer as reading each skill."""

from collections import Counter
from collections.abc import Sequence

import pytest
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketplace_sync.mirror.absence import SeenIds, absent_skills
from marketplace_sync.mirror.apply import apply_batch
from marketplace_sync.mirror.arrived import Arrived, Effect, Event, Item
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.runs import begin_run
from marketplace_sync.models import FeedChange
from marketplace_sync.protocol.events import SKILL_EMPTY, RatingChanged, SkillDeleted, SkillRecord
from marketplace_sync.protocol.stamps import Stamp

pytestmark = pytest.mark.django_db

Source = FeedChange.Source
FOUND = (Effect.CREATED, Effect.UPDATED, Effect.UNCHANGED)


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def at(second: int | None) -> Stamp | None:
    return None if second is None else Stamp(f"2026-03-01T10:00:{second:02}")


def record(skill_id: str, second: int | None) -> SkillRecord:
    return SkillRecord(skill_id, {**SKILL_EMPTY, "name": f"at {second}"}, {}, at(second))


ids = st.sampled_from("ab")
seconds = st.one_of(st.none(), st.integers(0, 3))
rows = st.builds(record, ids, seconds)
events: st.SearchStrategy[Event] = st.one_of(
    rows,
    st.builds(lambda skill_id, second: SkillDeleted(skill_id, at(second)), ids, seconds),
    st.builds(
        lambda skill_id, second, stars: RatingChanged(skill_id, 3, {"average_rating": stars}, at(second)),
        ids, seconds, st.sampled_from([1.0, 2.0]),
    ),
)  # fmt: skip
batches = st.lists(
    st.lists(st.one_of(st.tuples(st.just(True), rows), st.tuples(st.just(False), events)), max_size=4), max_size=4
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events, max_size=5), batches, st.booleans())
# A skill that is created and removed within one batch is not in the feed, so feed numbers do not show it.
@example([record("a", 1)], [[(True, record("b", 2)), (False, SkillDeleted("b", at(3)))]], False)
def test_counting_finds_the_same_absent_skills_as_reading_each(
    lease: Lease, before: Sequence[Event], script: Sequence[Sequence[tuple[bool, Event]]], forced: bool
) -> None:
    point = transaction.savepoint()
    try:
        apply_batch([Arrived(event, number, Source.STREAM) for number, event in enumerate(before, 1)], lease)
        run = begin_run(lease, "start")
        arrival = begun = len(before) + 1
        seen, found, fleeting = SeenIds(), Counter[Effect](), 0
        for batch in script:
            items: list[Item] = []
            for listed, event in batch:
                arrival += 1
                if listed:
                    items.append(Arrived(event, arrival, Source.LISTING, polled=True, forced=forced, run_id=run.id))
                else:
                    items.append(Arrived(event, arrival, Source.STREAM))
            result = apply_batch(items, lease)
            fleeting += result.fleeting
            of_listed = [number for number, (listed, _) in enumerate(batch) if listed]
            seen.add_all(batch[number][1].skill_id for number in of_listed)  # type: ignore[union-attr]
            found.update(result.effects[number] for number in of_listed)
        if not fleeting and found.total() == len(seen) == sum(found[effect] for effect in FOUND):
            assert absent_skills(seen, begun, run) == absent_skills(seen, begun)
    finally:
        transaction.savepoint_rollback(point)
