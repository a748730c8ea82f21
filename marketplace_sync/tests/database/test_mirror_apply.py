"""Law 1: one apply. A batch changes skills, tombstones, categories, feed and dead letters in one transaction."""

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
    """Apply events in order; each arrives one later than the one before."""

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


def feed_rows() -> list[tuple[int, str, str, list[str], dict[str, Any]]]:
    """Return the feed: number, kind, key, changed fields and data."""
    return list(FeedChange.objects.order_by("seq").values_list("seq", "kind", "key", "fields", "data"))


class TestEffects:
    def test_effects_are_in_the_order_of_the_items(self, feed: Feeder) -> None:
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

    def test_a_skill_created_by_a_message_without_code_is_incomplete(self, feed: Feeder) -> None:
        assert feed(record("a"), record("b", code="")).incomplete == ["a"]
        assert feed(record("c"), polled=True).incomplete == []

    def test_an_empty_batch_changes_nothing(self, feed: Feeder) -> None:
        assert feed().effects == []
        assert feed_rows() == []

    def test_a_batch_is_one_transaction(self, feed: Feeder, monkeypatch: pytest.MonkeyPatch) -> None:
        feed(record("a", 5))
        seq = LeaseRow.objects.get().feed_seq

        def fail(*_: object) -> None:
            raise RuntimeError("the disk is full")

        monkeypatch.setattr("marketplace_sync.mirror.apply.save_dead_letters", fail)
        dead_letter = RefusedInput.of(Refusal(Code.NOT_JSON, "", "bad"), b"x", DeadLetter.Source.STREAM)
        events = record("a", 6, name="New"), SkillDeleted("b", at(5)), record("c", category="new")
        with pytest.raises(RuntimeError):
            apply_batch([*feed.items(*events), dead_letter], feed.lease)
        assert Skill.objects.get().name == "Skill"
        assert (Tombstone.objects.count(), Category.objects.count(), len(feed_rows())) == (0, 0, 1)
        assert LeaseRow.objects.get().feed_seq == seq

    def test_nothing_is_written_without_the_lease(self, feed: Feeder) -> None:
        LeaseRow.objects.update(epoch=99, holder="other:2")
        with pytest.raises(LeaseLostError, match="other:2"):
            feed(record("a"))
        assert not Skill.objects.exists()


class TestFeed:
    def test_feed_numbers_rise_by_one_across_batches(self, feed: Feeder) -> None:
        first = feed(record("a"), record("b"), SkillDeleted("unknown", at(1)))
        feed(record("a"), rating("unknown", 5))  # nothing changes
        last = feed(record("c"))
        assert [row[0] for row in feed_rows()] == [1, 2, 3]
        assert (first.feed_seq, last.feed_seq, LeaseRow.objects.get().feed_seq) == (2, 3, 3)

    def test_a_created_skill_is_in_the_feed_with_all_public_fields(self, feed: Feeder) -> None:
        feed(whole("a", 5, code="x = 1", average_rating=4.5, remote_created_at=at(1)))
        ((seq, kind, key, fields, data),) = feed_rows()
        assert (seq, kind, key, fields) == (1, "skill_created", "a", [])
        assert data == {
            **SKILL_EMPTY, "skill_id": "a", "name": "Skill", "code": "x = 1", "average_rating": 4.5, "extra": {},
            "remote_created_at": "2026-03-01T00:00:01Z", "remote_updated_at": "2026-03-01T00:00:05Z",
            "rating_at": "2026-03-01T00:00:05Z",
        }  # fmt: skip

    def test_an_update_is_in_the_feed_with_its_changed_fields_only(self, feed: Feeder) -> None:
        feed(record("a", 5, tags=["x"]))
        feed(record("a", 6, tags=["y"], name="Skill"))
        assert feed_rows()[-1][1:] == (
            "skill_updated", "a", ["remote_updated_at", "tags"],
            {"tags": ["y"], "remote_updated_at": "2026-03-01T00:00:06Z"},
        )  # fmt: skip

    def test_a_change_of_rating_figures_alone_is_rating_changed(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(rating("a", 6, average_rating=4.0, rating_count=1))
        assert feed_rows()[-1][1:4] == ("rating_changed", "a", ["average_rating", "rating_at", "rating_count"])

    def test_a_removal_is_in_the_feed_with_its_time_only(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(SkillDeleted("a", at(6)))
        assert feed_rows()[-1][1:] == ("skill_deleted", "a", [], {"deleted_at": "2026-03-01T00:00:06Z"})

    def test_a_skill_that_comes_back_is_created_and_its_tombstone_removed(self, feed: Feeder) -> None:
        feed(record("a", 5), SkillDeleted("a", at(6)))
        feed(record("a", 7))
        assert [row[1] for row in feed_rows()] == ["skill_created"]  # the feed never reported its first moment
        feed(SkillDeleted("a", at(8)))
        feed(record("a", 9))
        assert [row[1] for row in feed_rows()] == ["skill_created", "skill_deleted", "skill_created"]
        assert not Tombstone.objects.exists()

    def test_unchanged_and_stale_events_write_no_row(self, feed: Feeder) -> None:
        feed(whole("a", 5), CategoryRecord("c", {"description": "Text"}, at(5)))
        before = (list(Skill.objects.values()), list(Category.objects.values()), feed_rows())
        result = feed(whole("a", 5), record("a", 4, name="Old"), CategoryRecord("c", {"description": "Old"}, at(4)))
        assert result.effects == [Effect.UNCHANGED, Effect.STALE, Effect.STALE]
        assert (list(Skill.objects.values()), list(Category.objects.values()), feed_rows()) == before

    def test_changes_of_one_key_in_a_batch_are_one_feed_row(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(record("a", 6, name="One"), record("a", 7, tags=["t"]), record("a", 8, name="Two"))
        assert feed_rows()[-1][1:4] == ("skill_updated", "a", ["name", "remote_updated_at", "tags"])
        assert (len(feed_rows()), feed_rows()[-1][4]["name"]) == (2, "Two")

    def test_a_change_undone_within_its_batch_is_not_in_the_feed(self, feed: Feeder) -> None:
        feed(record("a", None))
        feed(record("a", None, name="Other"), record("a", None, name="Skill"))
        assert len(feed_rows()) == 1

    def test_a_feed_row_has_the_source_and_run_of_the_item_that_changed_it(self, feed: Feeder) -> None:
        feed(record("a", 5))
        feed(record("a", 6, name="New"), polled=True, run_id=7)
        assert list(FeedChange.objects.order_by("seq").values_list("source", "run_id")) == [
            ("stream", None), ("listing", 7),
        ]  # fmt: skip


class TestCategories:
    def test_a_category_that_a_skill_names_is_created_before_the_skill(self, feed: Feeder) -> None:
        feed(record("a", category="new"))
        assert [(row[1], row[2]) for row in feed_rows()] == [("category_created", "new"), ("skill_created", "a")]
        assert Skill.objects.get().category == Category.objects.get(name="new")

    def test_any_record_fills_a_category_that_a_skill_created(self, feed: Feeder) -> None:
        feed(record("a", category="new"))
        feed(CategoryRecord("new", {"description": "Text"}, at(1)))
        assert Category.objects.get().description == "Text"
        assert feed_rows()[-1][1:4] == ("category_updated", "new", ["description", "remote_updated_at"])

    def test_an_unlisted_category_with_skills_stays(self, feed: Feeder) -> None:
        feed(record("a", 5, category="c"))
        assert feed(CategoryAbsent("c"), polled=True).effects == [Effect.UNCHANGED]
        assert feed(record("a", 6, category=None), CategoryAbsent("c"), polled=True).effects == [
            Effect.UPDATED, Effect.REMOVED,
        ]  # fmt: skip
        assert not Category.objects.exists()
        assert feed_rows()[-1][1:] == ("category_deleted", "c", [], {})

    def test_a_category_named_in_the_same_batch_stays(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {}, None))
        result = feed(record("a", category="c"), CategoryAbsent("c"), polled=True)
        assert result.effects == [Effect.CREATED, Effect.UNCHANGED]

    def test_a_category_named_after_its_removal_in_the_batch_exists(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {"description": "Text"}, None))
        result = feed(CategoryAbsent("c"), record("a", category="c"), polled=True)
        assert result.effects == [Effect.REMOVED, Effect.CREATED]
        assert Skill.objects.get().category == Category.objects.get(name="c")

    def test_a_category_reported_after_the_request_stays(self, feed: Feeder) -> None:
        feed(CategoryRecord("c", {}, None))
        asked = feed.items(CategoryAbsent("c"), polled=True)
        feed(CategoryRecord("c", {"description": "Heard since"}, None))
        assert apply_batch(asked, feed.lease).effects == [Effect.UNCHANGED]
        assert Category.objects.exists()

    def test_removing_a_category_that_is_not_stored_changes_nothing(self, feed: Feeder) -> None:
        assert feed(CategoryAbsent("c"), polled=True).effects == [Effect.UNCHANGED]
        assert feed_rows() == []


class TestStoredValues:
    def test_unknown_fields_and_deep_metadata_are_stored_as_received(self, feed: Feeder) -> None:
        kept = {"nested": {"list": [1, 2.5, None, True, "ü 🚀"]}, "address": 2**160, "z": 0.1, "a": {}}
        feed(whole("a", metadata=kept), record("b", extra=kept))
        assert Skill.objects.get(skill_id="a").metadata == kept
        assert Skill.objects.get(skill_id="b").extra == kept
        assert feed(whole("a", metadata=kept), polled=True).effects == [Effect.UNCHANGED]

    def test_times_are_also_stored_at_full_precision(self, feed: Feeder) -> None:
        fine = Stamp("2026-03-01T00:00:00.123456789")
        feed(SkillRecord("a", {"name": "Skill"}, {}, fine))
        row = Skill.objects.get()
        assert row.updated_stamp == fine
        assert row.remote_updated_at == datetime(2026, 3, 1, 0, 0, 0, 123456, UTC)

    def test_the_longest_record_that_the_protocol_accepts_is_stored(self, feed: Feeder) -> None:
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
    def test_an_unchanged_page_reads_only_fingerprints(self, feed: Feeder) -> None:
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
    def test_a_listed_row_that_differs_is_compared_in_full(self, feed: Feeder, other: SkillRecord) -> None:
        feed(whole("s", 5), polled=True)
        assert feed(other, polled=True).effects == [Effect.UPDATED]
        assert feed(other, polled=True).effects == [Effect.UNCHANGED]

    def test_a_stored_row_without_a_fingerprint_gets_one(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        known = Skill.objects.get().fingerprint
        Skill.objects.update(fingerprint="")
        assert feed(whole("s", 5), polled=True).effects == [Effect.UPDATED]
        assert Skill.objects.get().fingerprint == known

    def test_short_rows_and_rows_named_twice_are_compared_in_full(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        assert feed(record("s", 5), polled=True).effects == [Effect.UNCHANGED]
        assert feed(whole("s", 5), whole("s", 5), polled=True).effects == [Effect.UNCHANGED] * 2
        assert feed(whole("s", 6, name="New"), whole("s", 5), polled=True).effects == [Effect.UPDATED, Effect.STALE]

    def test_a_skill_with_a_tombstone_is_compared_in_full(self, feed: Feeder) -> None:
        feed(whole("s", 5), SkillDeleted("s", at(6)))
        assert feed(whole("s", 5), polled=True).effects == [Effect.STALE]

    def test_a_rating_changes_the_fingerprint(self, feed: Feeder) -> None:
        feed(whole("s", 5), polled=True)
        feed(rating("s", 6, average_rating=4.0, rating_count=1))
        assert feed(whole("s", 5, average_rating=4.0, rating_count=1), polled=True).effects == [Effect.UNCHANGED]

    def test_a_creation_time_finer_than_its_column_is_unchanged_after_a_rating(self, feed: Feeder) -> None:
        fine = {"remote_created_at": Stamp("2026-01-01T00:00:00.123456789")}
        feed(whole("s", 5, **fine), polled=True)
        feed(rating("s", 6, average_rating=4.0, rating_count=1))
        row = whole("s", 5, average_rating=4.0, rating_count=1, **fine)
        assert feed(row, polled=True).effects == [Effect.UNCHANGED]


class TestDeadLetters:
    def refused(self, raw: str | bytes, **refusal: Any) -> RefusedInput:
        fields: dict[str, Any] = {"code": Code.NOT_JSON, "field": "", "reason": "bad", **refusal}
        return RefusedInput.of(Refusal(**fields), raw, DeadLetter.Source.STREAM)

    def test_identical_dead_letters_are_counted_up(self, lease: Lease) -> None:
        apply_batch([self.refused("x"), self.refused("y"), self.refused("x")], lease)
        apply_batch([self.refused("x")], lease)
        counts = {bytes(head): count for head, count in DeadLetter.objects.values_list("head", "count")}
        assert counts == {b"x": 3, b"y": 1}

    def test_a_dead_letter_keeps_4_kib_and_the_size_and_digest_of_all_bytes(self, lease: Lease) -> None:
        apply_batch([self.refused("x" * 10_000 + "1"), self.refused("x" * 10_000 + "2")], lease)
        assert DeadLetter.objects.count() == 2
        for row in DeadLetter.objects.all():
            assert (bytes(row.head), row.size, row.count) == (b"x" * HEAD_BYTES, 10_001, 1)

    def test_a_refused_item_leaves_the_other_items_applied(self, feed: Feeder) -> None:
        result = apply_batch([self.refused("x"), *feed.items(record("a"))], feed.lease)
        assert result.effects == [Effect.REFUSED, Effect.CREATED]

    def test_a_replayed_dead_letter_opens_again_and_a_discarded_one_does_not(self, lease: Lease) -> None:
        apply_batch([self.refused("x"), self.refused("y")], lease)
        DeadLetter.objects.filter(head=b"x").update(state=DeadLetter.State.REPLAYED)
        DeadLetter.objects.filter(head=b"y").update(state=DeadLetter.State.DISCARDED)
        apply_batch([self.refused("x"), self.refused("y")], lease)
        assert {(bytes(row.head), row.state, row.count) for row in DeadLetter.objects.all()} == {
            (b"x", "open", 2), (b"y", "discarded", 2),
        }  # fmt: skip

    def test_a_token_at_the_cut_of_a_dead_letter_is_hidden(self, lease: Lease) -> None:
        token = "5c1a9d1e-7777-4f00-a111-0123456789ab"
        protect(token)
        raw = "x" * (HEAD_BYTES - 10) + token + "y" * 100
        apply_batch([self.refused(raw, field=token, reason=f"not this: {token}")], lease)
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
    def test_nul_and_lone_surrogates_are_refused_as_dead_letters(self, lease: Lease, raw: str) -> None:
        with pytest.raises(DecodeError) as refused:
            decode_message(raw, server_now=datetime.now(UTC))
        apply_batch([RefusedInput.of(refused.value.refusal, raw, DeadLetter.Source.STREAM)], lease)
        row = DeadLetter.objects.get()
        assert "\x00" not in row.field + row.reason + row.kind + row.key

    def test_a_refused_row_of_a_page_is_a_dead_letter_without_its_page(self, lease: Lease) -> None:
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
    """Return skills, tombstones, categories and effects after `script`, where a batch begins at each of `cuts`."""
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
    """Assert that a subscriber that applies the feed has the mirror, and that the numbers rise by one."""
    skills: dict[str, dict[str, Any]] = {}
    categories: dict[str, dict[str, Any]] = {}
    for number, (seq, kind, key, fields, data) in enumerate(feed_rows(), 1):
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
    stored = Skill.objects.values_list("skill_id", "code", "category__name", "rating_count")
    assert {(key, row["code"], row["category"], row["rating_count"]) for key, row in skills.items()} == set(stored)
    assert {(key, row["description"]) for key, row in categories.items()} == set(
        Category.objects.values_list("name", "description")
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts, st.sets(st.integers(1, 9)))
@example([(record("a", 1, code="x"), False), (whole("a", 1, code="x"), True)], {1})
@example(
    [(whole("a", 1, category="c"), False), (record("a", 2, category="d"), False), (CategoryAbsent("c"), True)], {2}
)
def test_the_mirror_is_the_same_however_events_are_batched(
    lease: Lease, script: list[tuple[Event, bool]], cuts: set[int]
) -> None:
    if script:
        one_by_one = played(script, set(range(len(script))), lease)
        assert played(script, cuts, lease) == one_by_one
        assert played(script, set(), lease) == one_by_one
