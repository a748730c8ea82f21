"""Planning ahead: a batch planned before the one before it is written has the same result as one planned after it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import DataError, OperationalError, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketplace_sync.mirror import isolate
from marketplace_sync.mirror.apply import BatchResult, apply_batch, apply_planned
from marketplace_sync.mirror.arrived import Arrived, CategoryAbsent, Effect, Event, Item, SkillAbsent
from marketplace_sync.mirror.isolate import PlannedBatch, apply_each, apply_planned_batch, plan_ahead
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.load import load_slots
from marketplace_sync.mirror.plan import BatchPlan, can_be_ahead, plan_batch
from marketplace_sync.models import Category, DeadLetter, FeedChange, Skill, Tombstone
from marketplace_sync.protocol.events import (
    SKILL_EMPTY,
    CategoryRecord,
    RatingChanged,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.stamps import Stamp

pytestmark = pytest.mark.django_db


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def at(second: int | None) -> Stamp | None:
    return None if second is None else Stamp(f"2026-03-01T10:00:{second:02}")


ids = st.sampled_from(["a", "b", "c"])
seconds = st.one_of(st.none(), st.integers(0, 9))
categories = st.sampled_from(["x", "y", None])
stars = st.one_of(st.none(), st.floats(0, 5))
records = st.builds(
    lambda skill_id, second, whole, category, stars, tags: SkillRecord(
        skill_id,
        {**(SKILL_EMPTY if whole else {}), "name": "n", "category": category, "average_rating": stars, "tags": tags},
        {"more": tags} if tags else {},
        at(second),
    ),
    ids, seconds, st.booleans(), categories, stars, st.lists(st.sampled_from(["t", "\N{SNOWMAN}"]), max_size=2),
)  # fmt: skip
events: st.SearchStrategy[Event] = st.one_of(
    records,
    records,
    st.builds(lambda skill_id, second: SkillDeleted(skill_id, at(second)), ids, seconds),
    st.builds(
        lambda skill_id, stars, second: RatingChanged(skill_id, 3, {"average_rating": stars}, at(second)),
        ids, stars, seconds,
    ),
    st.builds(SkillAbsent, ids),
    st.builds(lambda second: CategoryRecord("x", {"description": f"d{second}"}, at(second)), seconds),
)  # fmt: skip
batches = st.lists(st.lists(st.tuples(events, st.booleans()), min_size=1, max_size=6), min_size=2, max_size=4)


def items_of(script: Sequence[Sequence[tuple[Event, bool]]]) -> list[list[Item]]:
    """Return items with growing arrivals; a polled one is of the listing."""
    arrival = 0
    made: list[list[Item]] = []
    for batch in script:
        made.append([])
        for event, polled in batch:
            arrival += 1
            made[-1].append(Arrived(event, arrival, FeedChange.Source.STREAM, polled=polled))
    return made


def all_changes(results: Sequence[BatchResult]) -> dict[str, Any]:
    """Return all that the batches changed, without the times of writing."""
    named = dict(Category.objects.values_list("pk", "name"))
    skills = [
        {**row, "id": 0, "synced_at": 0, "category_id": named.get(row["category_id"])}
        for row in Skill.objects.order_by("skill_id").values()
    ]
    return {
        "skills": skills,
        "tombstones": list(Tombstone.objects.order_by("skill_id").values_list("skill_id", "deleted_stamp", "arrival")),
        "categories": list(Category.objects.order_by("name").values_list("name", "description", "arrival")),
        "feed": list(FeedChange.objects.order_by("seq").values_list("seq", "kind", "key", "fields", "data")),
        "results": [(result.effects, result.feed_seq, result.fetch, result.incomplete) for result in results],
    }


def in_order(batches: Sequence[Sequence[Item]], lease: Lease) -> list[BatchResult]:
    return [apply_batch(batch, lease) for batch in batches]


def ahead(batches: Sequence[Sequence[Item]], lease: Lease) -> list[BatchResult]:
    """Plan each batch before the one before it is written, if that writes anything."""
    results = []
    plan = plan_batch(batches[0])
    for following in [*batches[1:], None]:
        next_plan = None if following is None else plan_batch(following, plan)
        if plan.writes_nothing:
            results.append(BatchResult.of(plan, results[-1].feed_seq if results else 0))
        else:
            results.append(apply_planned(plan, lease))
        if next_plan is not None:
            plan = next_plan
    return results


def undone(work: Callable[..., list[BatchResult]], *arguments: Any) -> dict[str, Any]:
    """Return what `work` changed, and roll it back."""
    with transaction.atomic():
        changes = all_changes(work(*arguments))
        transaction.set_rollback(True)
    return changes


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=batches)
def test_a_batch_planned_ahead_has_the_same_result(lease: Lease, script: list[list[tuple[Event, bool]]]) -> None:
    made = items_of(script)
    assert undone(ahead, made, lease) == undone(in_order, made, lease)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=batches)
@example(
    script=[
        [(SkillRecord("a", {**SKILL_EMPTY, "name": "n"}, {}, at(1)), True)],
        [
            (RatingChanged("a", 3, {"average_rating": 4.0}, at(2)), False),
            (SkillRecord("a", {**SKILL_EMPTY, "name": "n"}, {}, at(1)), True),
        ],
    ]
)
def test_a_batch_has_the_result_of_its_items_one_by_one(lease: Lease, script: list[list[tuple[Event, bool]]]) -> None:
    """A row that equals the stored skill changes nothing, unless the batch changes that skill before it."""
    made = items_of(script)
    together, alone = (
        undone(in_order, made, lease),
        undone(in_order, [[item] for items in made for item in items], lease),
    )
    for what in ("skills", "tombstones", "categories"):
        assert together[what] == alone[what]
    effects, one_by_one = (
        [effect for result in changes["results"] for effect in result[0]] for changes in (together, alone)
    )
    assert effects == one_by_one


def skill(skill_id: str, second: int, **fields: Any) -> SkillRecord:
    return SkillRecord(skill_id, {**SKILL_EMPTY, "name": skill_id, **fields}, {}, at(second))


def reported(*events: Event, first: int = 1) -> list[Item]:
    return [Arrived(event, first + number, FeedChange.Source.STREAM) for number, event in enumerate(events)]


def test_a_second_attempt_does_not_use_the_plan_again(lease: Lease) -> None:
    """The connection may have been lost after the commit: the feed gets each change once."""
    items = reported(skill("a", 1), skill("b", 1))
    batch = PlannedBatch(items, plan_ahead(items, None))
    apply_planned_batch(batch, lease)
    assert batch.as_planned
    assert apply_planned_batch(batch, lease).effects == [Effect.UNCHANGED, Effect.UNCHANGED]
    assert FeedChange.objects.count() == 2


def test_a_plan_may_have_been_committed_though_its_attempt_failed(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the batch counts as not written as planned, and the next one is planned again."""

    def commit_and_fail(plan: BatchPlan, lease: Lease) -> BatchResult:
        apply_planned(plan, lease)
        raise OperationalError("the connection is gone")

    monkeypatch.setattr(isolate, "apply_planned", commit_and_fail)
    items = reported(skill("a", 1))
    batch = PlannedBatch(items, plan_ahead(items, None))
    with pytest.raises(OperationalError):
        apply_planned_batch(batch, lease)
    result = apply_planned_batch(batch, lease)
    assert (result.effects, batch.as_planned) == ([Effect.UNCHANGED], False)
    assert FeedChange.objects.count() == 1


def test_a_short_message_is_completed_even_if_it_is_applied_again(lease: Lease) -> None:
    """Its first attempt may have been committed: then it changes nothing, and is as incomplete as before."""
    short = SkillRecord("a", {"name": "a"}, {}, at(1))
    items = reported(short, skill("b", 1))
    batch = PlannedBatch(items, plan_ahead(items, None))
    results = [apply_planned_batch(batch, lease) for _ in range(3)]
    assert [result.incomplete for result in results] == [["a"]] * 3
    assert [result.effects[0] for result in results] == [Effect.CREATED, Effect.UNCHANGED, Effect.UNCHANGED]
    assert apply_each(reported(short, first=10), lease).incomplete == []  # the marketplace sent it once more


def test_a_plan_that_the_database_refuses_is_applied_item_by_item(
    lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(plan: BatchPlan, lease: Lease) -> BatchResult:
        raise DataError("too long for its column")

    monkeypatch.setattr(isolate, "apply_planned", refuse)
    items = reported(skill("a", 1))
    batch = PlannedBatch(items, plan_ahead(items, None))
    result = apply_planned_batch(batch, lease)
    assert (result.effects, batch.as_planned) == ([Effect.CREATED], False)
    assert not DeadLetter.objects.exists()


def test_an_id_that_no_driver_can_send_is_one_dead_letter(lease: Lease) -> None:
    """Protocol lets no such id through; if it did, it would cost a dead letter and not the daemon."""
    items = reported(skill("a", 1), skill("\ud800", 1), skill("b", 1))
    assert plan_ahead(items, None) is None
    batch = PlannedBatch(items, None)
    result = apply_planned_batch(batch, lease)
    assert (result.effects, batch.as_planned) == ([Effect.CREATED, Effect.REFUSED, Effect.CREATED], False)
    assert DeadLetter.objects.count() == 1


def test_an_absent_category_is_not_planned_ahead(lease: Lease) -> None:
    assert can_be_ahead(reported(skill("a", 1, category="x")))
    assert not can_be_ahead(reported(CategoryAbsent("x")))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stars=st.lists(st.floats(0, 5), min_size=1, max_size=20))
def test_ratings_are_read_back_exactly(lease: Lease, stars: list[float]) -> None:
    with transaction.atomic():
        events = [skill(f"s{number}", 1, average_rating=star) for number, star in enumerate(stars)]
        apply_each(reported(*events), lease)
        slots = load_slots([event.skill_id for event in events])
        assert [slot.fields["average_rating"] for slot in slots.values()] == [star + 0.0 for star in stars]  # type: ignore[union-attr]
        transaction.set_rollback(True)


@pytest.mark.parametrize("many", [1, 2, 4, 5, 64, 255, 1024, 1025, 2100])
def test_any_number_of_rows_can_be_written(lease: Lease, many: int) -> None:
    """SQLite's statements have room for certain numbers of rows; the room that is left changes nothing."""
    for second in (1, 2):
        rows = [skill(f"s{number}", second, version=f"{second}.{number}") for number in range(many)]
        apply_each(reported(*rows, first=second * 10_000), lease)
        assert dict(Skill.objects.values_list("skill_id", "version")) == {
            f"s{number}": f"{second}.{number}" for number in range(many)
        }
    assert FeedChange.objects.count() == 2 * many
