"""What a batch may cost, counted, not timed: cost grows with what changed, not with how it is cut or what is there."""

import re
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import connection
from django.db.models import Max
from django.test.utils import CaptureQueriesContext

from marketplace_sync.engine.merge import StoredSkill
from marketplace_sync.engine.pages import PagePlan
from marketplace_sync.mirror import absence
from marketplace_sync.mirror.absence import BegunRun, SeenIds, absent_skills
from marketplace_sync.mirror.apply import apply_batch
from marketplace_sync.mirror.arrived import Arrived, Effect, Event, Item
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.mirror.draft import MAX_STORED_BYTES
from marketplace_sync.mirror.feed import feed_row
from marketplace_sync.mirror.isolate import apply_each, plan_ahead
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.runs import begin_run
from marketplace_sync.mirror.save import skill_rows
from marketplace_sync.models import FeedChange, LeaseRow, Skill, Tombstone
from marketplace_sync.protocol.events import SKILL_EMPTY, RatingChanged, SkillDeleted, SkillPage, SkillRecord
from marketplace_sync.protocol.stamps import Stamp

pytestmark = pytest.mark.django_db

WRITES_SKILLS = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM) \"?marketplace_sync_skill\b")


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def test_a_row_is_of_plain_values() -> None:
    """A `str` that is more than one, as an enumeration's member, SQLite's driver looks up an adapter for, each time."""
    change = feed_row("s", (FeedChange.Kind.SKILL_UPDATED, ["name"], {"name": "a"}), FeedChange.Source.STREAM, 1)
    assert list(map(type, change)) == [int, str, str, str, str, str]
    held = StoredSkill(
        {**SKILL_EMPTY, "name": "a", "average_rating": 4.5}, {}, Stamp("2026-01-01T00:00:00"), 1, None, 0
    )
    ((_, row),) = skill_rows({"s": held.with_fingerprint()}, {"s": None}).whole
    assert set(map(type, row)) == {str, int, float, type(None)}


class Told:
    """Applies events in order, and keeps the statements that it took."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._arrivals = 0
        self.statements: list[str] = []

    def __call__(self, events: Iterable[Event], *, polled: bool = False, run: BegunRun | None = None) -> list[Effect]:
        items = []
        for event in events:
            self._arrivals += 1
            run_id = run and run.id
            items.append(Arrived(event, self._arrivals, FeedChange.Source.STREAM, polled=polled, run_id=run_id))
        with CaptureQueriesContext(connection) as queries:
            effects = apply_batch(items, self._lease).effects
        # SQLite's `executemany` is one statement, prepared once.
        self.statements = [query["sql"].partition(" times: ")[2] or query["sql"] for query in queries]
        return effects

    @property
    def on_skills(self) -> list[str]:
        return [statement for statement in self.statements if WRITES_SKILLS.search(statement)]


@pytest.fixture
def tell(lease: Lease) -> Told:
    return Told(lease)


def skill(number: int, second: int, **fields: object) -> SkillRecord:
    whole = {**SKILL_EMPTY, "name": f"Skill {number}", "category": "automation", **fields}
    return SkillRecord(f"s{number}", whole, {}, Stamp(f"2026-03-01T00:00:{second:02}"))


def of_every_kind(many: int) -> list[Event]:
    """Skills made, changed in their words and elsewhere, rated and removed: `many` of each, of those below 4 * many."""
    return [
        *(skill(1000 + number, 1) for number in range(many)),
        *(skill(number, 2, code="new") for number in range(many)),
        *(skill(many + number, 2, description="new") for number in range(many)),
        *(
            RatingChanged(f"s{2 * many + number}", 5, {"average_rating": 4.0, "rating_count": 1}, None)
            for number in range(many)
        ),
        *(SkillDeleted(f"s{3 * many + number}", Stamp("2026-03-01T00:00:09")) for number in range(many)),
    ]


# Past 32 skills their size is looked at; on PostgreSQL 200 items and more come by COPY.
@pytest.mark.parametrize("sizes", [(1, 3, 6), (7, 39), (41, 60)])
def test_a_batch_takes_as_many_statements_whatever_its_size(tell: Told, sizes: tuple[int, ...]) -> None:
    counts = set()
    for many in sizes:
        tell(skill(number, 1) for number in range(4 * many))
        effects = tell(of_every_kind(many))
        assert {Effect.CREATED, Effect.UPDATED, Effect.REMOVED} == set(effects)
        counts.add(len(tell.statements))
        for model in (Skill, Tombstone):
            model.objects.all().delete()
    assert len(counts) == 1


def test_what_a_message_takes_is_parsed_and_planned_once_and_goes_by_the_key(lease: Lease, postgres: None) -> None:
    for second in range(1, 9):  # the first of them when the table is empty
        apply_batch([Arrived(skill(1, second), second, FeedChange.Source.STREAM)], lease)
    prepared = dialect().select("SELECT name, statement, generic_plans, custom_plans FROM pg_prepared_statements")
    for begins in ("SELECT skill.skill_id", f"INSERT INTO {Skill._meta.db_table}", "UPDATE marketplace_sync_lease"):
        ((name, _, generic, custom),) = (found for found in prepared if found[1].startswith(begins))
        assert generic >= 7, begins
        assert custom == 0, begins
        if begins.startswith("SELECT"):
            with lease.writing():
                plan = "\n".join(line for (line,) in dialect().select(f"EXPLAIN EXECUTE {name} (ARRAY['s1'])"))
    assert "Index Cond: ((skill_id)::text = ANY" in plan
    assert "Seq Scan" not in plan


def test_a_message_alone_takes_no_more_than_ten_statements(tell: Told) -> None:
    tell([skill(1, 1)])
    tell([skill(1, 2, code="new")])
    assert len(tell.statements) <= 10, tell.statements


def test_what_a_key_went_through_in_a_batch_is_written_once(tell: Told) -> None:
    tell([skill(1, 1)])
    seq = LeaseRow.objects.get().feed_seq
    tell(skill(1, second, version=f"{second}") for second in range(2, 50))
    assert len(tell.on_skills) == 1
    assert LeaseRow.objects.get().feed_seq == seq + 1
    assert Skill.objects.get(skill_id="s1").version == "49"


def test_a_pass_over_an_unchanged_catalogue_writes_no_skill(tell: Told) -> None:
    rows = [skill(number, 1, code="x" * 100) for number in range(100)]
    tell(rows, polled=True)
    before = (LeaseRow.objects.get().feed_seq, Skill.objects.aggregate(Max("synced_at")))
    assert set(tell(rows, polled=True)) == {Effect.UNCHANGED}
    assert not tell.on_skills
    assert not [statement for statement in tell.statements if statement.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert (LeaseRow.objects.get().feed_seq, Skill.objects.aggregate(Max("synced_at"))) == before


def test_an_update_leaves_alone_what_skills_are_found_by_and_it_did_not_change(tell: Told) -> None:
    tell([skill(1, 1), skill(2, 1)])
    tell([skill(1, 2, code="new")])
    (statement,) = tell.on_skills
    if dialect().narrow_updates_pay:
        assert not re.search(r"\b(name|description|tags|category_id)\b", statement)
    tell([skill(1, 3, code="newer"), skill(2, 3, description="found by this")])
    assert len(tell.on_skills) == (2 if dialect().narrow_updates_pay else 1)
    assert Skill.objects.matching("found").get().skill_id == "s2"
    assert Skill.objects.get(skill_id="s1").code == "newer"


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many skills each look at what the mirror has gave; four at a time."""
    monkeypatch.setattr(absence, "_CHUNK", 4)
    sizes: list[int] = []

    kind = type(dialect())
    select_rows = kind.select_rows

    def counted(self: Any, columns: Any, source: str, parameters: Any) -> list[Any]:
        found = list(select_rows(self, columns, source, parameters))
        if source == absence._SOME_SKILLS:
            sizes.append(len(found))
        return found

    monkeypatch.setattr(kind, "select_rows", counted)
    return sizes


def test_what_a_listing_lacks_is_read_many_skills_at_a_time(tell: Told, handed_out: list[int]) -> None:
    """Row by row SQLite asks for the interpreter's lock: 30 s for 100,000 skills, beside a busy event loop."""
    tell(skill(number, 1) for number in range(12))
    tell([SkillDeleted("s2", None), skill(9, 2), RatingChanged("s10", 5, {"average_rating": 4.0}, None)])
    seen = seen_ids("s0", "s4", "s11", "another")
    assert absent_skills(seen, 12) == ({f"s{number}": number + 1 for number in (1, 3, 5, 6, 7, 8)}, 11)
    assert absent_skills(seen, 15)[0].keys() == {f"s{number}" for number in (1, 3, 5, 6, 7, 8, 9, 10)}
    assert handed_out == [4, 4, 3, 0] * 2


def test_nothing_is_read_for_a_pass_that_found_all_there_is(lease: Lease, tell: Told, handed_out: list[int]) -> None:
    tell([skill(1, 1)])
    run = begin_run(lease, "start")
    tell([skill(1, 1), skill(2, 1)], polled=True, run=run)
    assert absent_skills(seen_ids("s1", "s2"), 99, run) == ({}, 2)
    again = begin_run(lease, "interval")
    tell([skill(1, 1), skill(2, 1)], polled=True, run=again)
    assert absent_skills(seen_ids("s1", "s2"), 99, again) == ({}, 2)
    assert handed_out == []


def test_what_others_changed_during_a_pass_is_looked_at(lease: Lease, tell: Told) -> None:
    """The mirror has as many as were listed, and not the same ones."""
    tell([skill(1, 1), skill(2, 1)])
    run = begin_run(lease, "interval")
    tell([skill(1, 1), skill(2, 1)], polled=True, run=run)
    tell([SkillDeleted("s1", None), skill(3, 1)])
    assert absent_skills(seen_ids("s1", "s2"), 99, run) == ({"s3": 6}, 2)


def test_one_that_a_pass_found_nowhere_is_absent(lease: Lease, tell: Told) -> None:
    tell([skill(1, 1), skill(2, 1)])
    run = begin_run(lease, "interval")
    tell([skill(1, 1)], polled=True, run=run)
    assert absent_skills(seen_ids("s1"), 99, run) == ({"s2": 2}, 2)


def seen_ids(*ids: str) -> SeenIds:
    seen = SeenIds()
    seen.add_all(ids)
    return seen


def test_a_batch_takes_no_more_memory_for_what_is_held_of_large_skills(lease: Lease) -> None:
    many, size = 500, 300_000
    for start in range(0, many, 20):
        some = (skill(number, 1, code="x" * size) for number in range(start, start + 20))
        apply_batch([Arrived(event, start, FeedChange.Source.STREAM) for event in some], lease)
    figures = {"average_rating": 4.0, "rating_count": 1}
    items: list[Item] = [
        Arrived(RatingChanged(f"s{number}", 5, figures, None), many + number, FeedChange.Source.STREAM)
        for number in range(many)
    ]
    tracemalloc.start()
    try:
        assert plan_ahead(items, None) is None
        result = apply_each(items, lease)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.effects == [Effect.UPDATED] * many
    assert Skill.objects.filter(rating_count=1).count() == many
    assert most < 3 * MAX_STORED_BYTES < many * size


def test_a_hundred_thousand_seen_ids_take_a_few_mebibytes_however_long_they_are() -> None:
    seen = SeenIds()
    tracemalloc.start()
    try:
        new = seen.add_all(f"{number:0255}" for number in range(100_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(seen) == new == 100_000
    assert held < 9 * 2**20
    assert all(f"{number:0255}" in seen for number in range(100_000))
    assert not any(f"{number:0255}" in seen for number in range(100_000, 200_000))
    assert not seen.add(f"{0:0255}")


@pytest.mark.parametrize(("page_size", "at_once"), [(100, 4), (250, 4), (500, 2), (1000, 1)])
def test_large_pages_are_asked_for_by_fewer_at_once(page_size: int, at_once: int) -> None:
    plan = PagePlan(page_size, 10_000)
    assert plan.next_page() == 1
    plan.read(1, SkillPage((), (), page_size, 1, page_size, 100 * page_size, 100), new=page_size)
    assert len(list(iter(plan.next_page, None))) == at_once
