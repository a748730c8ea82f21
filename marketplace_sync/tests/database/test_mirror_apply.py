"""Law 1: one apply. What a batch does to rows, graves, categories, feed and dead letters, in one transaction."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marketplace_sync.logs import protect
from marketplace_sync.mirror.apply import BatchResult, apply_batch
from marketplace_sync.mirror.arrived import (
    HEAD_BYTES,
    Arrived,
    CategoryAbsent,
    Effect,
    Event,
    Item,
    RefusedInput,
    SkillAbsent,
)
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.models import Category, DeadLetter, FeedChange, LeaseRow, Skill, Tombstone
from marketplace_sync.protocol.events import SKILL_EMPTY, CategoryRecord, RatingChanged, SkillDeleted, SkillRecord
from marketplace_sync.protocol.limits import (
    MAX_CATEGORY_CHARS,
    MAX_COMMAND_CHARS,
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_VERSION_CHARS,
)
from marketplace_sync.protocol.listing import decode_skill_page
from marketplace_sync.protocol.messages import decode_message
from marketplace_sync.protocol.refusals import Code, DecodeError, Refusal
from marketplace_sync.protocol.stamps import Stamp

pytestmark = pytest.mark.django_db

STREAM, LISTING = FeedChange.Source.STREAM, FeedChange.Source.LISTING


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def at(second: int | None) -> Stamp | None:
    return None if second is None else Stamp(f"2026-03-01T00:00:{second:02}")


def record(
    skill_id: str = "s", time: int | None = None, *, extra: dict[str, Any] | None = None, **fields: Any
) -> SkillRecord:
    return SkillRecord(skill_id, {"name": "Skill", **fields}, extra or {}, at(time))


def whole(skill_id: str = "s", time: int | None = None, **fields: Any) -> SkillRecord:
    return record(skill_id, time, **{**SKILL_EMPTY, "name": "Skill", **fields})


def rating(skill_id: str = "s", time: int | None = None, **figures: Any) -> RatingChanged:
    return RatingChanged(skill_id, 5, figures, at(time))


class Feeder:
    """Applies events in order; each arrives one later than the one before."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.arrival = 0

    def items(self, *events: Event, polled: bool = False, run_id: int | None = None) -> list[Item]:
        items: list[Item] = []
        for event in events:
            self.arrival += 1
            source = LISTING if polled else STREAM
            items.append(Arrived(event, self.arrival, source, polled=polled, run_id=run_id))
        return items

    def __call__(self, *events: Event, polled: bool = False, run_id: int | None = None) -> BatchResult:
        return apply_batch(self.items(*events, polled=polled, run_id=run_id), self.lease)


@pytest.fixture
def feed(lease: Lease) -> Feeder:
    return Feeder(lease)


def told() -> list[tuple[int, str, str, list[str], dict[str, Any]]]:
    """The feed: seq, kind, key, changed fields and data."""
    return list(FeedChange.objects.order_by("seq").values_list("seq", "kind", "key", "fields", "data"))


class TestEffects:
    def test_each_item_has_its_effect_in_order(self, feed: Feeder) -> None:
        result = feed(
            record("a", 5), record("a", 5), record("a", 6, name="New"), record("a", 4), rating("a", 7),
            rating("unknown", 7, average_rating=4.0), SkillDeleted("a", at(9)), SkillDeleted("a", at(9)),
            CategoryRecord("c", {}, None), CategoryRecord("c", {}, None),
        )  # fmt: skip
        assert [str(effect) for effect in result.effects] == [
            "created", "unchanged", "updated", "stale", "fetch", "fetch", "removed", "unchanged",
            "created", "unchanged",
        ]  # fmt: skip
        assert result.fetch == ["a", "unknown"]

    def test_a_skill_that_the_stream_makes_known_without_its_code_is_incomplete(self, feed: Feeder) -> None:
        assert feed(record("a"), record("b", code="")).incomplete == ["a"]
        assert feed(record("c"), polled=True).incomplete == []

    def test_an_empty_batch_is_nothing(self, feed: Feeder) -> None:
        assert feed().effects == []
        assert told() == []

    def test_a_batch_is_one_transaction(self, feed: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(record("a", 5))
        seq = LeaseRow.objects.get().feed_seq

        def fail(*_: object) -> None:
            raise RuntimeError("the disk is full")

        monkeypatch.setattr("marketplace_sync.mirror.apply.save_dead_letters", fail)
        letter = RefusedInput.of(Refusal(Code.NOT_JSON, "", "bad"), b"x", DeadLetter.Source.STREAM)
        items = [*feed.items(record("a", 6, name="New"), SkillDeleted("b", at(5)), record("c", category="new")), letter]
        with pytest.raises(RuntimeError):
            apply_batch(items, feed.lease)
        assert Skill.objects.get().name == "Skill"
        assert (Tombstone.objects.count(), Category.objects.count(), len(told())) == (0, 0, 1)
        assert LeaseRow.objects.get().feed_seq == seq

    def test_without_the_lease_nothing_is_written(self, feed: Feeder) -> None:
        LeaseRow.objects.update(epoch=99, holder="other:2")
        with pytest.raises(LeaseLostError, match="other:2"):
            feed(record("a"))
        assert not Skill.objects.exists()


class TestFeed:
    def test_seq_rises_by_one_from_batch_to_batch(self, feed: Feeder) -> None:
        first = feed(record("a"), record("b"), SkillDeleted("unknown", at(1)))
        feed(record("a"), rating("unknown", 5))  # nothing changes
        last = feed(record("c"))
        assert [row[0] for row in told()] == [1, 2, 3]
        assert (first.feed_seq, last.feed_seq, LeaseRow.objects.get().feed_seq) == (2, 3, 3)

    def test_a_created_skill_is_told_whole_and_by_its_public_names(self, feed: Feeder) -> None:
        feed(whole("a", 5, code="x = 1", average_rating=4.5, remote_created_at=at(1)))
        ((seq, kind, key, fields, data),) = told()
        assert (seq, kind, key, fields) == (1, "skill_created", "a", [])
        assert data == {
            **SKILL_EMPTY, "skill_id": "a", "name": "Skill", "code": "x = 1", "average_rating": 4.5, "extra": {},
            "remote_created_at": "2026-03-01T00:00:01Z", "remote_updated_at": "2026-03-01T00:00:05Z",
            "rating_at": "2026-03-01T00:00:05Z",
        }  # fmt: skip

    def test_an_update_tells_the_changed_fields_and_no_others(self, feed: Feeder) -> None:
        feed(record("a", 5, tags=["x"]))
        feed(record("a", 6, tags=["y"], name="Skill"))
        assert told()[-1][1:] == (
            "skill_updated", "a", ["remote_updated_at", "tags"],
            {"tags": ["y"], "remote_updated_at": "2026-03-01T00:00:06Z"},
        )  # fmt: skip

    def test_a_change_of_figures_alone_is_a_rating(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(rating("a", 6, average_rating=4.0, rating_count=1))
        assert told()[-1][1:4] == ("rating_changed", "a", ["average_rating", "rating_at", "rating_count"])

    def test_a_removal_tells_when_and_nothing_else(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(SkillDeleted("a", at(6)))
        assert told()[-1][1:] == ("skill_deleted", "a", [], {"deleted_at": "2026-03-01T00:00:06Z"})

    def test_a_skill_that_came_back_is_created_anew_and_its_grave_is_gone(self, feed: Feeder) -> None:
        feed(record("a", 5), SkillDeleted("a", at(6)))
        feed(record("a", 7))
        assert [row[1] for row in told()] == ["skill_created"]  # that it was here for a moment nobody saw
        feed(SkillDeleted("a", at(8)))
        feed(record("a", 9))
        assert [row[1] for row in told()] == ["skill_created", "skill_deleted", "skill_created"]
        assert not Tombstone.objects.exists()

    def test_unchanged_and_stale_write_no_row_of_any_kind(self, feed: Feeder) -> None:
        feed(whole("a", 5), CategoryRecord("c", {"description": "Text"}, at(5)))
        before = (list(Skill.objects.values()), list(Category.objects.values()), told())
        result = feed(whole("a", 5), record("a", 4, name="Old"), CategoryRecord("c", {"description": "Old"}, at(4)))
        assert result.effects == [Effect.UNCHANGED, Effect.STALE, Effect.STALE]
        assert (list(Skill.objects.values()), list(Category.objects.values()), told()) == before

    def test_many_changes_of_a_key_in_a_batch_are_one_row_with_the_sum(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(record("a", 6, name="One"), record("a", 7, tags=["t"]), record("a", 8, name="Two"))
        assert told()[-1][1:4] == ("skill_updated", "a", ["name", "remote_updated_at", "tags"])
        assert (len(told()), told()[-1][4]["name"]) == (2, "Two")

    def test_a_change_that_is_undone_in_its_batch_tells_nothing(self, feed: Feeder) -> None:
        feed(record("a", None))
        feed(record("a", None, name="Other"), record("a", None, name="Skill"))
        assert len(told()) == 1

    def test_source_and_run_are_those_of_the_item_that_changed_it(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(record("a", 6, name="New"), polled=True, run_id=7)
        assert list(FeedChange.objects.order_by("seq").values_list("source", "run_id")) == [
            ("stream", None), ("listing", 7),
        ]  # fmt: skip


class TestCategories:
    def test_one_that_a_skill_names_is_made_and_told_before_the_skill(self, feed: Feeder) -> None:
        feed(record("a", category="new"))
        assert [(row[1], row[2]) for row in told()] == [("category_created", "new"), ("skill_created", "a")]
        assert Skill.objects.get().category == Category.objects.get(name="new")

    def test_a_made_one_is_filled_by_whatever_is_told_of_it(self, feed: Feeder) -> None:
        feed(record("a", category="new"))
        feed(CategoryRecord("new", {"description": "Text"}, at(1)))
        assert Category.objects.get().description == "Text"
        assert told()[-1][1:4] == ("category_updated", "new", ["description", "remote_updated_at"])

    def test_one_that_a_skill_names_stays_though_no_listing_has_it(self, feed: Feeder) -> None:
        feed(record("a", 5, category="c"))
        assert feed(CategoryAbsent("c"), polled=True).effects == [Effect.UNCHANGED]
        assert feed(record("a", 6, category=None), CategoryAbsent("c"), polled=True).effects == [
            Effect.UPDATED, Effect.REMOVED,
        ]  # fmt: skip
        assert not Category.objects.exists()
        assert told()[-1][1:] == ("category_deleted", "c", [], {})

    def test_one_that_this_batch_names_stays(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {}, None))
        result = feed(record("a", category="c"), CategoryAbsent("c"), polled=True)
        assert result.effects == [Effect.CREATED, Effect.UNCHANGED]

    def test_one_that_a_skill_names_after_its_removal_in_the_same_batch_is_there(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {"description": "Text"}, None))
        result = feed(CategoryAbsent("c"), record("a", category="c"), polled=True)
        assert result.effects == [Effect.REMOVED, Effect.CREATED]
        assert Skill.objects.get().category == Category.objects.get(name="c")

    def test_one_of_which_was_heard_since_the_question_stays(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {}, None))
        asked = feed.items(CategoryAbsent("c"), polled=True)
        feed(CategoryRecord("c", {"description": "Heard since"}, None))
        assert apply_batch(asked, feed.lease).effects == [Effect.UNCHANGED]
        assert Category.objects.exists()

    def test_one_that_is_not_held_can_not_go(self, feed: Feeder) -> None:
        assert feed(CategoryAbsent("c"), polled=True).effects == [Effect.UNCHANGED]
        assert told() == []


class TestWhatIsKept:
    def test_unknown_fields_and_deep_metadata_come_back_as_they_came(self, feed: Feeder) -> None:
        kept = {"nested": {"list": [1, 2.5, None, True, "ü 🚀"]}, "address": 2**160, "z": 0.1, "a": {}}
        feed(whole("a", metadata=kept), record("b", extra=kept))
        assert Skill.objects.get(skill_id="a").metadata == kept
        assert Skill.objects.get(skill_id="b").extra == kept
        assert feed(whole("a", metadata=kept), polled=True).effects == [Effect.UNCHANGED]

    def test_times_are_kept_at_full_precision_beside_their_columns(self, feed: Feeder) -> None:
        fine = Stamp("2026-03-01T00:00:00.123456789")
        feed(SkillRecord("a", {"name": "Skill"}, {}, fine))
        row = Skill.objects.get()
        assert row.updated_stamp == fine
        assert row.remote_updated_at == datetime(2026, 3, 1, 0, 0, 0, 123456, UTC)

    def test_the_longest_record_that_the_protocol_lets_through_can_be_held(self, feed: Feeder) -> None:
        def wide(chars: int) -> str:  # four bytes each, and nothing that compresses
            return "".join(chr(0x10000 + (number * 7919) % 0xFFFF) for number in range(chars))

        feed(
            whole(
                wide(MAX_ID_CHARS), name=wide(MAX_NAME_CHARS), category=wide(MAX_CATEGORY_CHARS),
                version=wide(MAX_VERSION_CHARS), command=wide(MAX_COMMAND_CHARS),
            )
        )  # fmt: skip
        feed(SkillDeleted(wide(MAX_ID_CHARS), at(5)))
        assert Tombstone.objects.get().skill_id == wide(MAX_ID_CHARS)


class TestFingerprints:
    def test_an_unchanged_page_reads_fingerprints_alone(self, feed: Feeder) -> None:
        rows = [whole(f"s{number}", 5, code="x" * 100) for number in range(50)]
        feed(*rows, polled=True)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert set(feed(*rows, polled=True).effects) == {Effect.UNCHANGED}
        touching = [query["sql"] for query in queries if "marketplace_sync_skill" in query["sql"]]
        assert len(touching) == 1
        assert '"code"' not in touching[0]

    @pytest.mark.parametrize(
        "other",
        [
            whole("s", 5, code="x = 2"), whole("s", 6), whole("s", 5, average_rating=1.0), whole("s", 5, category="c"),
            SkillRecord("s", whole().fields, {"unknown": 1}, at(5)),
        ],
    )  # fmt: skip
    def test_any_difference_of_a_listed_row_leaves_the_fast_path(self, feed: Feeder, other: SkillRecord) -> None:
        feed(whole("s", 5), polled=True)
        assert feed(other, polled=True).effects == [Effect.UPDATED]
        assert feed(other, polled=True).effects == [Effect.UNCHANGED]

    def test_a_row_without_one_gets_one(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        known = Skill.objects.get().fingerprint
        Skill.objects.update(fingerprint="")
        assert feed(whole("s", 5), polled=True).effects == [Effect.UPDATED]
        assert Skill.objects.get().fingerprint == known

    def test_a_short_row_and_one_named_twice_take_the_long_way_to_the_same_end(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        assert feed(record("s", 5), polled=True).effects == [Effect.UNCHANGED]
        assert feed(whole("s", 5), whole("s", 5), polled=True).effects == [Effect.UNCHANGED] * 2
        assert feed(whole("s", 6, name="New"), whole("s", 5), polled=True).effects == [Effect.UPDATED, Effect.STALE]

    def test_a_buried_skill_is_not_on_the_fast_path(self, feed: Feeder) -> None:
        feed(whole("s", 5), SkillDeleted("s", at(6)))
        assert feed(whole("s", 5), polled=True).effects == [Effect.STALE]

    def test_figures_of_a_rating_move_the_fingerprint(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        feed(rating("s", 6, average_rating=4.0, rating_count=1))
        assert feed(whole("s", 5, average_rating=4.0, rating_count=1), polled=True).effects == [Effect.UNCHANGED]

    def test_a_creation_time_finer_than_its_column_does_not_leave_the_fast_path_after_a_rating(
        self, feed: Feeder
    ) -> None:
        fine = {"remote_created_at": Stamp("2026-01-01T00:00:00.123456789")}
        feed(whole("s", 5, **fine), polled=True)
        feed(rating("s", 6, average_rating=4.0, rating_count=1))
        row = whole("s", 5, average_rating=4.0, rating_count=1, **fine)
        assert feed(row, polled=True).effects == [Effect.UNCHANGED]


class TestDeadLetters:
    def letter(self, raw: str | bytes, **refusal: Any) -> RefusedInput:
        fields: dict[str, Any] = {"code": Code.NOT_JSON, "field": "", "reason": "bad", **refusal}
        return RefusedInput.of(Refusal(**fields), raw, DeadLetter.Source.STREAM)

    def test_identical_ones_are_counted_up_within_a_batch_and_across(self, lease: Lease) -> None:
        apply_batch([self.letter("x"), self.letter("y"), self.letter("x")], lease)
        apply_batch([self.letter("x")], lease)
        counts = {bytes(head): count for head, count in DeadLetter.objects.values_list("head", "count")}
        assert counts == {b"x": 3, b"y": 1}

    def test_the_first_four_kibibytes_are_kept_with_the_size_and_the_digest_of_all(self, lease: Lease) -> None:
        apply_batch([self.letter("x" * 10_000 + "1"), self.letter("x" * 10_000 + "2")], lease)
        assert DeadLetter.objects.count() == 2
        for row in DeadLetter.objects.all():
            assert (bytes(row.head), row.size, row.count) == (b"x" * HEAD_BYTES, 10_001, 1)

    def test_the_effect_is_refused_and_the_other_items_stand(self, feed: Feeder) -> None:
        result = apply_batch([self.letter("x"), *feed.items(record("a"))], feed.lease)
        assert result.effects == [Effect.REFUSED, Effect.CREATED]

    def test_one_that_was_replayed_is_open_again_and_a_discarded_one_stays_so(self, lease: Lease) -> None:
        apply_batch([self.letter("x"), self.letter("y")], lease)
        DeadLetter.objects.filter(head=b"x").update(state=DeadLetter.State.REPLAYED)
        DeadLetter.objects.filter(head=b"y").update(state=DeadLetter.State.DISCARDED)
        apply_batch([self.letter("x"), self.letter("y")], lease)
        assert {(bytes(row.head), row.state, row.count) for row in DeadLetter.objects.all()} == {
            (b"x", "open", 2), (b"y", "discarded", 2),
        }  # fmt: skip

    def test_a_token_is_hidden_also_where_the_cut_goes_through_it(self, lease: Lease) -> None:
        token = "5c1a9d1e-7777-4f00-a111-0123456789ab"
        protect(token)
        raw = "x" * (HEAD_BYTES - 10) + token + "y" * 100
        apply_batch([self.letter(raw, field=token, reason=f"not this: {token}")], lease)
        row = DeadLetter.objects.get()
        assert token[:8] not in bytes(row.head).decode()
        assert token not in row.field + row.reason
        assert row.size == len(raw)

    @pytest.mark.parametrize(
        "raw",
        [
            r'{"type": "skill_update", "data": {"skill_id": "a\u0000b", "name": "n"}}',
            r'{"type": "skill_update", "data": {"skill_id": "a", "name": "n\u0000"}}',
            r'{"type": "skill_update", "data": {"skill_id": "a", "name": "n", "odd\u0000key\ud800": 1}}',
            r'{"type": "skill_update", "data": {"skill_id": "a", "name": "n", "metadata": {"\u0000": ["\u0000"]}}}',
            r'{"type": "odd\u0000type\ud800", "data": {"skill_id": "a"}}',
            r'{"type": "category_update", "data": {"name": "c\u0000"}}',
            "\x00",
            '{"type": "skill_update", "data": {"skill_id": "a", "name": "\udcff"}}',
        ],
    )
    def test_nul_and_lone_surrogates_are_refused_and_the_letter_can_be_kept(self, lease: Lease, raw: str) -> None:
        with pytest.raises(DecodeError) as refused:
            decode_message(raw, server_now=datetime.now(UTC))
        apply_batch([RefusedInput.of(refused.value.refusal, raw, DeadLetter.Source.STREAM)], lease)
        row = DeadLetter.objects.get()
        assert "\x00" not in row.field + row.reason + row.kind + row.key

    def test_a_broken_row_of_a_page_is_kept_alone(self, lease: Lease) -> None:
        body = json.dumps([{"skill_id": "a", "name": "A"}, {"skill_id": "b\x00", "name": "B"}]).encode()
        page = decode_skill_page(body, server_now=datetime.now(UTC))
        apply_batch([RefusedInput.of(row.refusal, row.raw, DeadLetter.Source.LISTING) for row in page.refused], lease)
        row = DeadLetter.objects.get()
        assert (row.source, row.key, json.loads(bytes(row.head))["name"]) == ("listing", "", "B")


# The property: however a sequence is split into batches, the mirror ends the same, and the feed adds up to it.

names = st.sampled_from(["a", "b"])
seconds = st.none() | st.integers(1, 4)
texts = st.sampled_from(["x", "y"])
categories = st.sampled_from(["c", "d", None])
events = st.one_of(
    st.builds(lambda key, time, text: record(key, time, code=text), names, seconds, texts),
    st.builds(record, names, seconds, category=categories),
    st.builds(whole, names, seconds, code=texts, category=categories),
    st.builds(lambda key, time: SkillDeleted(key, at(time)), names, seconds),
    st.builds(lambda key, time, count: rating(key, time, average_rating=4.0, rating_count=count), names, seconds,
              st.integers(0, 2)),
    st.builds(SkillAbsent, names),
    st.builds(lambda time, text: CategoryRecord("c", {"description": text}, at(time)), seconds, texts),
    st.just(CategoryAbsent("c")),
)  # fmt: skip
scripts = st.lists(st.tuples(events, st.booleans()), max_size=10)


def forget_everything() -> None:
    for model in (Skill, Category, Tombstone, FeedChange):
        model.objects.all().delete()
    LeaseRow.objects.update(feed_seq=0)


def played(script: Sequence[tuple[Event, bool]], cuts: set[int], lease: Lease) -> tuple[Any, ...]:
    """Rows, graves, categories and effects after `script`, a new batch beginning at each of `cuts`."""
    forget_everything()
    items: list[Item] = [
        Arrived(event, number, LISTING if polled else STREAM, polled=polled)
        for number, (event, polled) in enumerate(script, 1)
    ]
    effects: list[Effect] = []
    batch: list[Item] = []
    for number, item in enumerate(items):
        if number in cuts and batch:
            effects += apply_batch(batch, lease).effects
            batch = []
        batch.append(item)
    effects += apply_batch(batch, lease).effects
    assert_feed_adds_up()
    clocks = ("updated_stamp", "arrival", "rating_stamp", "rating_arrival", "fingerprint")
    return (
        list(Skill.objects.order_by("skill_id").values("skill_id", "name", "code", "average_rating", "rating_count",
                                                       "category__name", "extra", *clocks)),
        list(Tombstone.objects.order_by("skill_id").values("skill_id", "deleted_stamp", "arrival")),
        list(Category.objects.order_by("name").values("name", "description", "updated_stamp", "arrival")),
        effects,
    )  # fmt: skip


def assert_feed_adds_up() -> None:
    """A follower that applies the feed has the mirror; the numbers rise by one."""
    skills: dict[str, dict[str, Any]] = {}
    categories: dict[str, dict[str, Any]] = {}
    for number, (seq, kind, key, fields, data) in enumerate(told(), 1):
        assert seq == number
        known = categories if kind.startswith("category") else skills
        match kind.partition("_")[2]:
            case "created":
                assert key not in known
                known[key] = data
            case "deleted":
                del known[key]
            case _:
                assert fields == sorted(data)
                assert data
                assert all(known[key][name] != value for name, value in data.items())
                known[key] = {**known[key], **data}
    held = Skill.objects.values_list("skill_id", "code", "category__name", "rating_count")
    assert {(key, row["code"], row["category"], row["rating_count"]) for key, row in skills.items()} == set(held)
    assert {(key, row["description"]) for key, row in categories.items()} == set(
        Category.objects.values_list("name", "description")
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts, st.sets(st.integers(1, 9)))
@example([(record("a", 1, code="x"), False), (whole("a", 1, code="x"), True)], {1})
@example(
    [(whole("a", 1, category="c"), False), (record("a", 2, category="d"), False), (CategoryAbsent("c"), True)], {2}
)
def test_any_split_into_batches_gives_the_same_mirror(
    lease: Lease, script: list[tuple[Event, bool]], cuts: set[int]
) -> None:
    if script:
        one_by_one = played(script, set(range(len(script))), lease)
        assert played(script, cuts, lease) == one_by_one
        assert played(script, set(), lease) == one_by_one
