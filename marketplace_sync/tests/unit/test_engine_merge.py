"""Laws 2 and 3: the newest wins, and the dead stay dead."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from marketplace_sync.engine.merge import (
    BARE_CATEGORY,
    MergeOutcome,
    Slot,
    StoredCategory,
    StoredSkill,
    StoredTombstone,
    arrival_number,
    fingerprint_of,
    merge_absence,
    merge_category,
    merge_deletion,
    merge_rating,
    merge_record,
    newer,
    record_fingerprint,
)
from marketplace_sync.protocol.events import (
    SKILL_EMPTY,
    CategoryRecord,
    RatingChanged,
    SkillDeleted,
    SkillRecord,
)
from marketplace_sync.protocol.stamps import Stamp


def at(second: int | None) -> Stamp | None:
    """Return the server's time at that second; `None`: no time."""
    return None if second is None else Stamp(f"2026-03-01T00:00:{second:02}")


def record(time: int | None = None, *, extra: dict[str, Any] | None = None, **fields: Any) -> SkillRecord:
    """Return a record of the skill with `fields` and its name alone."""
    return SkillRecord("s", {"name": "Skill", **fields}, extra or {}, at(time))


def whole(time: int | None = None, **fields: Any) -> SkillRecord:
    """Return a record with every field, like a listing row."""
    return record(time, **{**SKILL_EMPTY, "name": "Skill", **fields})


def after(slot: Slot, *events: SkillRecord | SkillDeleted | RatingChanged, arrival: int = 1) -> Slot:
    """Return what is stored after the stream sent these events, one after the other, from `arrival` on."""
    for number, event in enumerate(events, arrival):
        match event:
            case SkillRecord():
                slot, _ = merge_record(slot, event, number, polled=False)
            case SkillDeleted():
                slot, _ = merge_deletion(slot, event, number)
            case RatingChanged():
                slot, _ = merge_rating(slot, event, number)
    return slot


def stored(*events: SkillRecord | SkillDeleted | RatingChanged, arrival: int = 1) -> StoredSkill:
    slot = after(None, *events, arrival=arrival)
    assert isinstance(slot, StoredSkill)
    return slot


def deleted(time: int | None = None) -> SkillDeleted:
    return SkillDeleted("s", at(time))


def rating(time: int | None = None, **figures: Any) -> RatingChanged:
    return RatingChanged("s", 5, figures, at(time))


class TestTheNewestRecordWins:
    def test_the_first_record_creates_the_skill_with_empty_values_for_missing_fields(self) -> None:
        slot, outcome = merge_record(None, record(5, tags=["a"]), 1, polled=False)
        assert isinstance(slot, StoredSkill)
        assert outcome is MergeOutcome.APPLIED
        assert slot.fields == {**SKILL_EMPTY, "name": "Skill", "tags": ["a"]}
        assert slot.updated == at(5)

    def test_a_newer_record_is_applied(self) -> None:
        slot, outcome = merge_record(stored(record(5)), record(6, name="New"), 2, polled=False)
        assert isinstance(slot, StoredSkill)
        assert (outcome, slot.fields["name"], slot.updated) == (MergeOutcome.APPLIED, "New", at(6))

    def test_an_older_record_is_stale_however_late_it_arrives(self) -> None:
        before = stored(record(5))
        assert merge_record(before, record(4, name="Old"), 99, polled=True) == (before, MergeOutcome.STALE)

    def test_a_difference_of_less_than_a_microsecond_decides(self) -> None:
        fine = [Stamp(f"2026-03-01T00:00:00.12345678{digit}") for digit in (1, 2)]
        before = stored(replace(record(name="Second"), updated=fine[1]))
        late, outcome = merge_record(before, replace(record(name="First"), updated=fine[0]), 9, polled=False)
        assert (late, outcome) == (before, MergeOutcome.STALE)

    def test_the_same_time_and_content_is_unchanged_and_the_very_same_object(self) -> None:
        before = stored(whole(5))
        slot, outcome = merge_record(before, whole(5), 2, polled=True)
        assert slot is before
        assert outcome is MergeOutcome.UNCHANGED

    def test_the_same_content_with_a_newer_time_moves_the_time(self) -> None:
        slot, outcome = merge_record(stored(record(5)), record(6), 2, polled=False)
        assert isinstance(slot, StoredSkill)
        assert (outcome, slot.updated) == (MergeOutcome.APPLIED, at(6))

    def test_on_a_tie_the_later_arrival_wins(self) -> None:
        before = stored(record(5, name="First"), arrival=3)
        later, outcome = merge_record(before, record(5, name="Second"), 4, polled=False)
        assert isinstance(later, StoredSkill)
        assert (outcome, later.fields["name"]) == (MergeOutcome.APPLIED, "Second")
        assert merge_record(before, record(5, name="Second"), 2, polled=True) == (before, MergeOutcome.STALE)

    def test_a_listing_row_arrives_when_its_request_begins(self) -> None:
        # Requested as number 2, and the message came as number 3 while the answer was under way.
        before = stored(record(5, name="By stream"), arrival=3)
        assert merge_record(before, record(5, name="On the page"), 2, polled=True) == (before, MergeOutcome.STALE)

    @pytest.mark.parametrize(("time", "before_time"), [(None, 5), (5, None), (None, None)])
    def test_a_record_without_a_time_ties_with_the_stored_one(self, time: int | None, before_time: int | None) -> None:
        before = stored(record(before_time, name="Stored"), arrival=3)
        later, outcome = merge_record(before, record(time, name="New"), 4, polled=False)
        assert isinstance(later, StoredSkill)
        assert (outcome, later.fields["name"]) == (MergeOutcome.APPLIED, "New")
        assert later.updated == at(5 if 5 in (time, before_time) else None)
        assert merge_record(before, record(time, name="New"), 2, polled=False) == (
            before,
            MergeOutcome.STALE,
        )

    def test_arrivals_of_an_earlier_epoch_came_before(self) -> None:
        assert arrival_number(7, 2**40 - 1) < arrival_number(8, 0)
        before = stored(record(5, name="Before the restart"), arrival=arrival_number(7, 1_000_000))
        later, outcome = merge_record(before, record(5, name="After"), arrival_number(8, 1), polled=True)
        assert isinstance(later, StoredSkill)
        assert (outcome, later.fields["name"]) == (MergeOutcome.APPLIED, "After")

    def test_a_forced_record_wins_whatever_its_time(self) -> None:
        slot, outcome = merge_record(stored(record(9)), record(1, name="New"), 2, polled=True, forced=True)
        assert isinstance(slot, StoredSkill)
        assert (outcome, slot.fields["name"], slot.updated) == (MergeOutcome.APPLIED, "New", at(1))


class TestShortUpdates:
    def test_a_field_that_is_absent_stays_as_it_is(self) -> None:
        slot = stored(record(5, code="x = 1", tags=["a"], category="c"), record(6, code="x = 2"))
        assert (slot.fields["code"], slot.fields["tags"], slot.fields["category"]) == ("x = 2", ["a"], "c")

    def test_a_null_is_decoded_as_the_empty_value_and_empties_the_field(self) -> None:
        slot = stored(
            record(5, code="x = 1", tags=["a"], category="c", average_rating=4.0, rating_count=2),
            record(6, code="", tags=[], category=None, average_rating=None, rating_count=0),
        )
        assert slot.fields == {**SKILL_EMPTY, "name": "Skill"}

    def test_unknown_fields_are_stored_and_a_later_record_adds_to_them(self) -> None:
        slot = stored(record(5, extra={"a": 1, "b": 1}), record(6, extra={"b": None}))
        assert slot.extra == {"a": 1, "b": None}

    def test_a_short_older_record_adds_nothing(self) -> None:
        before = stored(record(5))
        assert merge_record(before, record(4, code="x = 1"), 2, polled=True) == (before, MergeOutcome.STALE)

    def test_only_a_whole_record_has_a_fingerprint_and_it_is_the_stored_one(self) -> None:
        assert record_fingerprint(record(5)) is None
        assert record_fingerprint(whole(5)) == stored(whole(5)).fingerprint

    def test_a_creation_time_finer_than_its_column_is_no_difference_the_next_time(self) -> None:
        fine, coarse = (Stamp(f"2026-01-01T00:00:00.12{digits}") for digits in ("00009", ""))
        slot = stored(whole(5, remote_created_at=fine))
        assert slot.fields["remote_created_at"] == coarse
        assert record_fingerprint(whole(5, remote_created_at=fine)) == slot.fingerprint
        assert record_fingerprint(whole(5, remote_created_at=coarse)) == slot.fingerprint

    def test_a_fingerprint_does_not_depend_on_the_order_of_keys(self) -> None:
        one = fingerprint_of({**SKILL_EMPTY, "metadata": {"a": 1, "b": 2}}, {"x": 1, "y": 2}, None)
        other = fingerprint_of({**SKILL_EMPTY, "metadata": {"b": 2, "a": 1}}, {"y": 2, "x": 1}, None)
        assert one == other


class TestRatings:
    def test_a_rating_changes_its_figures_and_nothing_else(self) -> None:
        before = stored(record(5, code="x = 1", average_rating=3.0, rating_count=1))
        slot, outcome = merge_rating(before, rating(6, average_rating=4.0, rating_count=2), 2)
        assert isinstance(slot, StoredSkill)
        assert outcome is MergeOutcome.APPLIED
        assert slot.fields == {**before.fields, "average_rating": 4.0, "rating_count": 2}
        assert (slot.updated, slot.arrival, slot.rated) == (at(5), 1, at(6))

    def test_a_rating_newer_than_the_record_does_not_make_the_next_record_stale(self) -> None:
        slot = stored(record(5, average_rating=3.0), rating(9, average_rating=4.0), record(6, name="New"))
        assert (slot.fields["name"], slot.fields["average_rating"]) == ("New", 4.0)

    def test_a_stream_record_older_than_the_rating_leaves_the_figures(self) -> None:
        slot = stored(record(5, average_rating=3.0), rating(9, average_rating=4.0), record(6, average_rating=3.0))
        assert (slot.fields["average_rating"], slot.rated) == (4.0, at(9))

    def test_a_record_newer_than_the_rating_brings_its_figures(self) -> None:
        slot = stored(record(5, average_rating=3.0), rating(6, average_rating=4.0), record(7, average_rating=2.0))
        assert (slot.fields["average_rating"], slot.rated) == (2.0, at(7))

    def test_a_listing_row_requested_after_the_rating_came_brings_newer_figures(self) -> None:
        before = stored(whole(5, average_rating=3.0), rating(9, average_rating=4.0))  # arrivals 1 and 2
        seen = whole(5, average_rating=4.5)
        slot, outcome = merge_record(before, seen, 3, polled=True)
        assert isinstance(slot, StoredSkill)
        assert (outcome, slot.fields["average_rating"], slot.rated) == (MergeOutcome.APPLIED, 4.5, at(9))
        # Requested before the rating came, it does not contain it.
        before = after(stored(whole(5, average_rating=3.0)), rating(9, average_rating=4.0), arrival=4)
        assert merge_record(before, seen, 3, polled=True) == (before, MergeOutcome.UNCHANGED)

    def test_a_stale_listing_row_brings_no_figures(self) -> None:
        before = stored(whole(5, average_rating=3.0))
        assert merge_record(before, whole(4, average_rating=4.0), 9, polled=True) == (before, MergeOutcome.STALE)

    def test_an_older_rating_is_stale(self) -> None:
        before = stored(record(5), rating(9, average_rating=4.0))
        assert merge_rating(before, rating(8, average_rating=1.0), 9) == (before, MergeOutcome.STALE)

    def test_between_ratings_of_equal_or_unknown_times_the_arrival_decides(self) -> None:
        assert stored(record(5), rating(9, average_rating=4.0), rating(9, average_rating=3.0)).fields[
            "average_rating"
        ] == pytest.approx(3.0)
        slot = stored(record(5), rating(9, average_rating=4.0), rating(None, average_rating=2.0))
        assert (slot.fields["average_rating"], slot.rated) == (2.0, at(9))

    def test_a_repeated_rating_is_unchanged(self) -> None:
        before = stored(record(5), rating(9, average_rating=4.0))
        assert merge_rating(before, rating(9, average_rating=4.0), 3) == (before, MergeOutcome.UNCHANGED)

    def test_a_null_average_empties_the_stored_one(self) -> None:
        slot = stored(record(5, average_rating=4.0, rating_count=1), rating(9, average_rating=None, rating_count=0))
        assert (slot.fields["average_rating"], slot.fields["rating_count"]) == (None, 0)

    def test_a_count_that_is_missing_stays(self) -> None:
        assert stored(record(5, rating_count=7), rating(9, average_rating=4.0)).fields["rating_count"] == 7

    def test_a_rating_without_an_average_needs_a_fetch(self) -> None:
        before = stored(record(5, average_rating=3.0))
        assert merge_rating(before, rating(9, rating_count=2), 2) == (before, MergeOutcome.FETCH)

    def test_a_rating_of_an_unknown_skill_needs_a_fetch(self) -> None:
        assert merge_rating(None, rating(9, average_rating=3.0), 2) == (None, MergeOutcome.FETCH)

    @pytest.mark.parametrize(
        ("rated", "dead", "outcome"),
        [
            (4, 5, MergeOutcome.STALE),
            (5, 5, MergeOutcome.STALE),
            (6, 5, MergeOutcome.FETCH),
            (None, 5, MergeOutcome.FETCH),
            (4, None, MergeOutcome.FETCH),
        ],
    )
    def test_a_rating_of_a_removed_skill_needs_a_fetch_only_if_it_may_be_back(
        self, rated: int | None, dead: int | None, outcome: MergeOutcome
    ) -> None:
        tombstone = StoredTombstone(at(dead), 1)
        assert merge_rating(tombstone, rating(rated, average_rating=3.0), 2) == (tombstone, outcome)


class TestTombstones:
    def test_a_removal_newer_than_the_record_leaves_a_tombstone_with_its_time(self) -> None:
        assert merge_deletion(stored(record(5)), deleted(6), 2) == (StoredTombstone(at(6), 2), MergeOutcome.APPLIED)

    def test_a_removal_older_than_the_record_is_stale(self) -> None:
        before = stored(record(5))
        assert merge_deletion(before, deleted(4), 2) == (before, MergeOutcome.STALE)

    def test_between_a_removal_and_a_record_of_equal_times_the_arrival_decides(self) -> None:
        before = stored(record(5), arrival=3)
        assert merge_deletion(before, deleted(5), 4) == (StoredTombstone(at(5), 4), MergeOutcome.APPLIED)
        assert merge_deletion(before, deleted(5), 2) == (before, MergeOutcome.STALE)

    def test_a_removal_without_a_time_leaves_a_tombstone_with_the_records_time(self) -> None:
        assert merge_deletion(stored(record(5)), deleted(None), 2) == (StoredTombstone(at(5), 2), MergeOutcome.APPLIED)

    def test_a_removal_of_an_unknown_skill_leaves_a_tombstone_against_older_records(self) -> None:
        tombstone, outcome = merge_deletion(None, deleted(6), 1)
        assert (tombstone, outcome) == (StoredTombstone(at(6), 1), MergeOutcome.UNCHANGED)
        assert merge_record(tombstone, record(5), 2, polled=True) == (tombstone, MergeOutcome.STALE)

    def test_an_older_record_never_revives_a_skill_whichever_sync_lists_it(self) -> None:
        tombstone = StoredTombstone(at(6), 1)
        for arrival in (0, 2, 10**9, arrival_number(9, 9)):
            assert merge_record(tombstone, record(5), arrival, polled=True) == (tombstone, MergeOutcome.STALE)

    def test_a_newer_record_revives_a_skill_with_its_own_fields_alone(self) -> None:
        slot = after(None, record(5, code="x = 1"), deleted(6), record(7, tags=["a"]))
        assert isinstance(slot, StoredSkill)
        assert slot.fields == {**SKILL_EMPTY, "name": "Skill", "tags": ["a"]}

    def test_the_later_of_two_removals_counts(self) -> None:
        tombstone = StoredTombstone(at(6), 1)
        assert merge_deletion(tombstone, deleted(8), 2)[0] == StoredTombstone(at(8), 2)
        assert merge_deletion(tombstone, deleted(4), 2) == (tombstone, MergeOutcome.STALE)
        assert merge_deletion(tombstone, deleted(6), 2) == (tombstone, MergeOutcome.UNCHANGED)

    def test_a_newer_rating_does_not_prevent_a_removal(self) -> None:
        slot = stored(record(5), rating(9, average_rating=4.0))
        assert merge_deletion(slot, deleted(6), 3) == (StoredTombstone(at(6), 3), MergeOutcome.APPLIED)

    def test_a_forced_record_revives_a_removed_skill(self) -> None:
        slot, outcome = merge_record(StoredTombstone(at(6), 1), record(5), 2, polled=True, forced=True)
        assert isinstance(slot, StoredSkill)
        assert outcome is MergeOutcome.APPLIED


class TestAbsence:
    def test_removal_by_absence_leaves_the_rows_own_time(self) -> None:
        tombstone, outcome = merge_absence(stored(record(5)), 2)
        assert (tombstone, outcome) == (StoredTombstone(at(5), 2), MergeOutcome.APPLIED)
        # So a row that was requested before does not revive it, and one that is listed again does.
        assert merge_record(tombstone, record(5), 1, polled=True)[1] is MergeOutcome.STALE
        assert merge_record(tombstone, record(5), 3, polled=True)[1] is MergeOutcome.APPLIED

    def test_news_since_the_request_wins_over_an_absence(self) -> None:
        before = stored(record(5), arrival=3)
        assert merge_absence(before, 2) == (before, MergeOutcome.STALE)
        rated = after(stored(record(5)), rating(6, average_rating=1.0), arrival=3)
        assert merge_absence(rated, 2) == (rated, MergeOutcome.STALE)

    @pytest.mark.parametrize("slot", [None, StoredTombstone(None, 1)])
    def test_the_absence_of_an_unknown_skill_changes_nothing(self, slot: Slot) -> None:
        assert merge_absence(slot, 2) == (slot, MergeOutcome.UNCHANGED)


class TestCategories:
    def category(self, time: int | None = None, **fields: Any) -> CategoryRecord:
        return CategoryRecord("c", fields, at(time))

    def test_the_first_record_creates_the_category_and_a_short_one_leaves_the_rest(self) -> None:
        first, outcome = merge_category(None, self.category(5, description="Text", skill_count=3), 1)
        assert (outcome, first) == (
            MergeOutcome.APPLIED,
            StoredCategory({**BARE_CATEGORY.fields, "description": "Text", "skill_count": 3}, at(5), 1),
        )
        second, outcome = merge_category(first, self.category(6, skill_count=4), 2)
        assert second is not None
        assert (outcome, second.fields["description"], second.fields["skill_count"]) == (
            MergeOutcome.APPLIED,
            "Text",
            4,
        )

    def test_an_older_record_is_stale_and_an_equal_one_unchanged(self) -> None:
        before, _ = merge_category(None, self.category(5, description="Text"), 1)
        assert merge_category(before, self.category(4, description="Old"), 2) == (before, MergeOutcome.STALE)
        assert merge_category(before, self.category(5, description="Text"), 2) == (before, MergeOutcome.UNCHANGED)
        assert merge_category(before, self.category(None), 2) == (before, MergeOutcome.UNCHANGED)

    def test_on_a_tie_the_arrival_decides(self) -> None:
        before, _ = merge_category(None, self.category(5, description="First"), 3)
        assert merge_category(before, self.category(5, description="Second"), 4)[1] is MergeOutcome.APPLIED
        assert merge_category(before, self.category(5, description="Second"), 2) == (before, MergeOutcome.STALE)

    def test_any_record_is_newer_than_a_category_that_only_a_skill_named(self) -> None:
        assert merge_category(BARE_CATEGORY, self.category(1, description="Text"), 1)[1] is MergeOutcome.APPLIED

    def test_a_creation_time_finer_than_its_column_is_no_difference_the_next_time(self) -> None:
        fine = self.category(5, remote_created_at=Stamp("2026-01-01T00:00:00.123456789"))
        before, _ = merge_category(None, fine, 1)
        assert merge_category(before, fine, 2) == (before, MergeOutcome.UNCHANGED)

    def test_a_forced_record_wins_whatever_its_time(self) -> None:
        before, _ = merge_category(None, self.category(5, description="Stored"), 1)
        assert merge_category(before, self.category(1, description="New"), 2, forced=True)[1] is MergeOutcome.APPLIED


def test_the_order_is_total_and_reflexive() -> None:
    moments = [at(1), at(2), None]
    for one in moments:
        assert newer(one, 1, one, 1)
        for other in moments:
            assert newer(one, 2, other, 1) or newer(other, 1, one, 2)


# Properties. Each event has its own time; `number` makes its content different.
Event = tuple[str, int, int]  # kind, second, number
events = st.lists(
    st.tuples(st.sampled_from(["put", "short", "delete", "rate"]), st.integers(0, 20), st.integers(0, 9)), max_size=12
)


def as_event(event: Event) -> SkillRecord | SkillDeleted | RatingChanged:
    kind, second, number = event
    match kind:
        case "put":
            return whole(second, name=f"put {number}", code=f"code {number}")
        case "short":
            return record(second, name=f"short {number}")
        case "delete":
            return deleted(second)
    return rating(second, average_rating=number / 2, rating_count=number)


def winner(events: list[Event], wanted: Callable[[Event], bool]) -> Event | None:
    """Return the oracle's answer: the newest by time, and of several the last to arrive."""
    best: Event | None = None
    for event in filter(wanted, events):
        if best is None or event[1] >= best[1]:
            best = event
    return best


@given(events)
@example([("put", 5, 1), ("delete", 5, 0)])
@example([("delete", 5, 0), ("put", 5, 1)])
@example([("delete", 6, 0), ("put", 5, 1), ("delete", 4, 0)])
def test_in_any_order_of_delivery_the_newest_record_or_removal_wins(script: list[Event]) -> None:
    slot = after(None, *map(as_event, script))
    last = winner(script, lambda event: event[0] != "rate")
    if last is None:
        assert slot is None
    elif last[0] == "delete":
        assert slot == StoredTombstone(at(last[1]), slot.arrival if slot else 0)
    else:
        assert isinstance(slot, StoredSkill)
        assert (slot.updated, slot.fields["name"]) == (at(last[1]), as_event(last).fields["name"])  # type: ignore[union-attr]


@given(st.permutations([("put", second, second) for second in range(6)] + [("rate", 7, 8), ("rate", 6, 2)]))
def test_whole_records_and_ratings_of_different_times_end_the_same_in_any_order(script: list[Event]) -> None:
    # A rating of an unknown skill needs a fetch, so the skill is stored from the start.
    slot = after(after(None, whole(0, name="seed")), *map(as_event, script), arrival=2)
    assert isinstance(slot, StoredSkill)
    assert (slot.fields["name"], slot.fields["code"], slot.updated) == ("put 5", "code 5", at(5))
    assert (slot.fields["average_rating"], slot.fields["rating_count"], slot.rated) == (4.0, 8, at(7))
    assert slot.fingerprint == fingerprint_of(slot.fields, slot.extra, slot.updated)


@given(events, st.data())
def test_repeating_the_last_event_changes_nothing(script: list[Event], data: st.DataObject) -> None:
    slot = after(None, *map(as_event, script))
    if script:
        arrival = len(script)
        again = after(slot, as_event(script[-1]), arrival=arrival + data.draw(st.integers(0, 1)))
        assert again == slot
