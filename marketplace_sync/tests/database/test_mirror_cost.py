"""What a batch may cost, counted and not timed: it grows with the changes, not with the batches or the stored rows."""

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


def test_rows_have_plain_values_only() -> None:
    """For a subclass of `str`, such as an enumeration's member, SQLite's driver looks for an adapter each time."""
    change = feed_row("s", (FeedChange.Kind.SKILL_UPDATED, ["name"], {"name": "a"}), FeedChange.Source.STREAM, 1)
    assert list(map(type, change)) == [int, str, str, str, str, str]
    stored = StoredSkill(
        {**SKILL_EMPTY, "name": "a", "average_rating": 4.5}, {}, Stamp("2026-01-01T00:00:00"), 1, None, 0
    )
    ((_, row),) = skill_rows({"s": stored.with_fingerprint()}, {"s": None}).whole
    assert set(map(type, row)) == {str, int, float, type(None)}


class Applied:
    """Apply events in order, and keep the SQL statements of the last batch."""

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
def apply(lease: Lease) -> Applied:
    return Applied(lease)


def skill(number: int, second: int, **fields: object) -> SkillRecord:
    whole = {**SKILL_EMPTY, "name": f"Skill {number}", "category": "automation", **fields}
    return SkillRecord(f"s{number}", whole, {}, Stamp(f"2026-03-01T00:00:{second:02}"))


def of_every_kind(many: int) -> list[Event]:
    """Return `many` events of each kind: skills created, changed in code, in description, rated and removed."""
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


# From 33 skills on their size is read first; on PostgreSQL, 200 items and more come by COPY.
@pytest.mark.parametrize("sizes", [(1, 3, 6), (7, 39), (41, 60)])
def test_the_number_of_statements_does_not_depend_on_the_batch_size(apply: Applied, sizes: tuple[int, ...]) -> None:
    counts = set()
    for many in sizes:
        apply(skill(number, 1) for number in range(4 * many))
        effects = apply(of_every_kind(many))
        assert {Effect.CREATED, Effect.UPDATED, Effect.REMOVED} == set(effects)
        counts.add(len(apply.statements))
        for model in (Skill, Tombstone):
            model.objects.all().delete()
    assert len(counts) == 1


def test_statements_of_a_message_are_prepared_once_and_use_the_key_index(lease: Lease, postgres: None) -> None:
    for second in range(1, 9):  # the table is empty at first
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


def test_a_single_message_takes_at_most_ten_statements(apply: Applied) -> None:
    apply([skill(1, 1)])
    apply([skill(1, 2, code="new")])
    assert len(apply.statements) <= 10, apply.statements


def test_a_key_is_written_once_per_batch(apply: Applied) -> None:
    apply([skill(1, 1)])
    seq = LeaseRow.objects.get().feed_seq
    apply(skill(1, second, version=f"{second}") for second in range(2, 50))
    assert len(apply.on_skills) == 1
    assert LeaseRow.objects.get().feed_seq == seq + 1
    assert Skill.objects.get(skill_id="s1").version == "49"


def test_a_full_sync_of_an_unchanged_catalogue_writes_no_skill(apply: Applied) -> None:
    rows = [skill(number, 1, code="x" * 100) for number in range(100)]
    apply(rows, polled=True)
    before = (LeaseRow.objects.get().feed_seq, Skill.objects.aggregate(Max("synced_at")))
    assert set(apply(rows, polled=True)) == {Effect.UNCHANGED}
    assert not apply.on_skills
    assert not [statement for statement in apply.statements if statement.startswith(("INSERT", "UPDATE", "DELETE"))]
    assert (LeaseRow.objects.get().feed_seq, Skill.objects.aggregate(Max("synced_at"))) == before


def test_an_update_does_not_write_unchanged_search_columns(apply: Applied) -> None:
    apply([skill(1, 1), skill(2, 1)])
    apply([skill(1, 2, code="new")])
    (statement,) = apply.on_skills
    if dialect().narrow_updates_pay:
        assert not re.search(r"\b(name|description|tags|category_id)\b", statement)
    apply([skill(1, 3, code="newer"), skill(2, 3, description="found by this")])
    assert len(apply.on_skills) == (2 if dialect().narrow_updates_pay else 1)
    assert Skill.objects.matching("found").get().skill_id == "s2"
    assert Skill.objects.get(skill_id="s1").code == "newer"


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the skills of each statement that `absent_skills` runs, with four per statement."""
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


def test_absent_skills_are_read_in_chunks(apply: Applied, handed_out: list[int]) -> None:
    """Row by row SQLite asks for the interpreter's lock: 30 s for 100,000 skills, beside a busy event loop."""
    apply(skill(number, 1) for number in range(12))
    apply([SkillDeleted("s2", None), skill(9, 2), RatingChanged("s10", 5, {"average_rating": 4.0}, None)])
    seen = seen_ids("s0", "s4", "s11", "another")
    assert absent_skills(seen, 12) == ({f"s{number}": number + 1 for number in (1, 3, 5, 6, 7, 8)}, 11)
    assert absent_skills(seen, 15)[0].keys() == {f"s{number}" for number in (1, 3, 5, 6, 7, 8, 9, 10)}
    assert handed_out == [4, 4, 3, 0] * 2


def test_no_skills_are_read_if_the_sync_found_them_all(lease: Lease, apply: Applied, handed_out: list[int]) -> None:
    apply([skill(1, 1)])
    run = begin_run(lease, "start")
    apply([skill(1, 1), skill(2, 1)], polled=True, run=run)
    assert absent_skills(seen_ids("s1", "s2"), 99, run) == ({}, 2)
    again = begin_run(lease, "interval")
    apply([skill(1, 1), skill(2, 1)], polled=True, run=again)
    assert absent_skills(seen_ids("s1", "s2"), 99, again) == ({}, 2)
    assert handed_out == []


def test_changes_during_a_full_sync_are_read_for_absent_skills(lease: Lease, apply: Applied) -> None:
    """As many skills are stored as were listed, and not the same ones."""
    apply([skill(1, 1), skill(2, 1)])
    run = begin_run(lease, "interval")
    apply([skill(1, 1), skill(2, 1)], polled=True, run=run)
    apply([SkillDeleted("s1", None), skill(3, 1)])
    assert absent_skills(seen_ids("s1", "s2"), 99, run) == ({"s3": 6}, 2)


def test_an_unlisted_skill_is_absent(lease: Lease, apply: Applied) -> None:
    apply([skill(1, 1), skill(2, 1)])
    run = begin_run(lease, "interval")
    apply([skill(1, 1)], polled=True, run=run)
    assert absent_skills(seen_ids("s1"), 99, run) == ({"s2": 2}, 2)


def seen_ids(*ids: str) -> SeenIds:
    seen = SeenIds()
    seen.add_all(ids)
    return seen


def test_memory_of_a_batch_is_bounded_however_large_its_stored_skills_are(lease: Lease) -> None:
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
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(seen) == new == 100_000
    assert used < 3 * 2**20
    assert all(f"{number:0255}" in seen for number in range(100_000))
    assert not any(f"{number:0255}" in seen for number in range(100_000, 200_000))
    assert not seen.add(f"{0:0255}")


@pytest.mark.parametrize(("page_size", "parallel"), [(100, 4), (250, 4), (500, 2), (1000, 1)])
def test_fewer_large_pages_are_requested_in_parallel(page_size: int, parallel: int) -> None:
    plan = PagePlan(page_size, 10_000)
    assert plan.next_page() == 1
    plan.read(1, SkillPage((), (), page_size, 1, page_size, 100 * page_size, 100), new=page_size)
    assert len(list(iter(plan.next_page, None))) == parallel
