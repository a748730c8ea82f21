"""Law 16: whatever changed a stored row, `verifysync` names the row and the column, and repair and sync heal it."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.db.models import F

from marketplace_sync.engine.merge import fingerprint_of
from marketplace_sync.mirror.compare import same_value
from marketplace_sync.mirror.load import load_slots
from marketplace_sync.models import Category, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.database.test_daemon_listing import live, sync
from marketplace_sync.tests.support.harness import CATEGORY, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)

FAR = 2**62  # an arrival of an epoch that there was not yet
SKILL_CHANGES: dict[str, object] = {
    "skill_id": "planted", "name": "x", "description": "x", "version": "6.6.6", "code": "import os", "command": "sh",
    "python_packages": '["evil"]', "npm_packages": '["evil"]', "tags": '["other"]', "metadata": '{"author": true}',
    "category_id": None, "average_rating": 1.0, "rating_count": 999, "extra": '{"planted": 1}',
    "remote_created_at": "2020-02-02 00:00:00", "remote_updated_at": "2020-02-02 00:00:00",
    "rating_at": "2020-02-02 00:00:00", "updated_stamp": "2030-02-02T00:00:00",
    "rating_stamp": "2030-02-02T00:00:00", "arrival": FAR, "rating_arrival": FAR, "fingerprint": "f" * 32,
}  # fmt: skip
CATEGORY_CHANGES: dict[str, object] = {
    "name": "planted", "description": "x", "icon_url": "x", "skill_count": 99,
    "remote_created_at": "2020-02-02 00:00:00", "remote_updated_at": "2020-02-02 00:00:00",
    "updated_stamp": "2030-02-02T00:00:00", "arrival": FAR,
}  # fmt: skip
# The mirror's own columns: when it wrote a row, and the row's number, on which no reader relies.
OWN = {"id", "synced_at"}
# The columns that differ in a row that was written again.
REWRITTEN = {*OWN, "arrival", "rating_arrival"}


def fill(server: SimulatorServer) -> None:
    """Give the marketplace a skill and a category for each column."""
    for number, _ in enumerate(CATEGORY_CHANGES):
        server.market.put_category({**CATEGORY, "name": f"category-{number}"}, announce=False)
    for number, _ in enumerate(SKILL_CHANGES):
        server.market.put_skill(skill(number, install_count=3), announce=False, stamp=False)


def tamper(columns: Iterable[str] = (*SKILL_CHANGES, *CATEGORY_CHANGES)) -> None:
    """Change each column of a skill, and each of a category, in a row of its own."""
    wanted = set(columns)
    for table, key, name, changes in (
        (Skill._meta.db_table, "skill_id", "skill-{:05}", SKILL_CHANGES),
        (Category._meta.db_table, "name", "category-{}", CATEGORY_CHANGES),
    ):
        for number, (column, value) in enumerate(changes.items()):
            if column in wanted:
                update(table, {column: value}, key, name.format(number))


def update(table: str, values: dict[str, object], key: str, row: str) -> None:
    """Change one row, by SQL that knows nothing of the application."""
    changes = ", ".join(f"{column} = %s" for column in values)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {changes} WHERE {key} = %s", [*values.values(), row])
        assert cursor.rowcount == 1


def stored() -> dict[str, dict[str, Any]]:
    """Return all columns of every skill and category by key, without those that differ in a row written again."""
    rows = {}
    for model, key, named in ((Skill, "skill_id", {"category__name"}), (Category, "name", set())):
        for row in model._base_manager.values(*columns_of(model) - REWRITTEN - {"category_id"} | named):
            rows[f"{model.__name__} {row[key]}"] = row
    return rows


def columns_of(model: type[models.Model]) -> set[str]:
    return {field.attname for field in model._meta.concrete_fields}


def age_runs(hours: float) -> None:
    """Make all sync runs so far that much older."""
    gone = timedelta(hours=hours)
    SyncRun.objects.update(started_at=F("started_at") - gone, finished_at=F("finished_at") - gone)


def test_every_column_is_among_those_that_are_changed_here() -> None:
    assert columns_of(Skill) == {*SKILL_CHANGES, *OWN}
    assert columns_of(Category) == {*CATEGORY_CHANGES, "id"}


async def test_a_sync_once_a_day_reads_the_rows_themselves_and_heals_them() -> None:
    async with live(0) as (server, running):
        fill(server)
        assert (await sync(running)).created == len(SKILL_CHANGES)
        before = await running.ask(stored)
        await running.ask(tamper)
        # The regular sync trusts the fingerprints. This is what it is good for, and why a day is its limit.
        assert not (await sync(running)).by_row
        assert await running.ask(Skill.objects.filter(name="x").exists)
        await running.ask(age_runs, 23.9)
        healing = await sync(running)
        assert healing.by_row
        # A row under another name is removed as any that is no longer listed, which takes a second look.
        await running.until_in_sync()
        assert await running.ask(stored) == before
        assert not (await sync(running)).by_row, "the next one is due in a day"


async def test_neither_restarts_nor_a_clock_that_was_put_back_postpone_the_daily_reading() -> None:
    async with live(3) as (server, running):
        assert await running.ask(SyncRun.objects.filter(by_row=True).count) == 1
        await running.ask(age_runs, 20)
        await running.end()
        async with mirror(server) as again:
            await again.until_state("live")
            assert await again.ask(SyncRun.objects.filter(by_row=True).count) == 1
            await again.ask(age_runs, 4)
            await again.end()
        async with mirror(server) as again:
            await again.ask(update, Skill._meta.db_table, {"name": "x"}, "skill_id", "skill-00001")
            await again.until_state("live")
            assert await again.ask(SyncRun.objects.filter(by_row=True).count) == 2
            assert (await again.difference()).in_sync
            await again.ask(age_runs, -48)
            assert (await sync(again)).by_row


async def test_a_row_changed_together_with_its_times_is_replaced() -> None:
    async with live(3) as (_, running):
        before = await running.ask(stored)
        later = {"remote_updated_at": "2029-01-01 00:00:00", "updated_stamp": "2029-01-01T00:00:00"}
        await running.ask(update, Skill._meta.db_table, {"name": "x", **later}, "skill_id", "skill-00001")
        found = await running.difference()
        assert found.different == {"skill-00001": ["name", "remote_updated_at"]}
        assert not found.later
        await running.ask(age_runs, 24)
        await sync(running)
        assert await running.ask(stored) == before


async def test_a_fingerprint_made_to_match_the_changed_row_hides_nothing() -> None:
    async with live(3) as (_, running):

        def forge() -> None:
            update(Skill._meta.db_table, {"name": "x"}, "skill_id", "skill-00001")
            slot = load_slots(["skill-00001"])["skill-00001"]
            fingerprint = fingerprint_of(slot.fields, slot.extra, slot.updated)  # type: ignore[union-attr]
            update(Skill._meta.db_table, {"fingerprint": fingerprint}, "skill_id", "skill-00001")

        await running.ask(forge)
        assert (await running.difference()).different == {"skill-00001": ["name"]}
        await sync(running)
        assert (await running.difference()).in_sync


async def test_a_renamed_category_is_found_in_its_skills_too() -> None:
    async with live(3) as (_, running):
        before = await running.ask(stored)
        await running.ask(update, Category._meta.db_table, {"name": "x"}, "name", "automation")
        found = await running.difference()
        assert found.missing_categories == {"automation"}
        assert found.different == {f"skill-{number:05}": ["category"] for number in range(3)}
        await running.ask(age_runs, 24)
        await sync(running)
        await running.until_in_sync()
        assert await running.ask(stored) == before


async def test_rows_deleted_and_added_by_sql_are_found_and_healed() -> None:
    async with live(30) as (_, running):
        before = await running.ask(stored)

        def move() -> None:
            with connection.cursor() as cursor, transaction.atomic():
                cursor.execute("DELETE FROM marketplace_sync_skill WHERE skill_id = 'skill-00007'")
                others = ", ".join(sorted(columns_of(Skill) - {"id", "skill_id"}))
                cursor.execute(
                    f"INSERT INTO marketplace_sync_skill (skill_id, {others}) "
                    f"SELECT skill_id || '-copy', {others} FROM marketplace_sync_skill WHERE skill_id = 'skill-00003'"
                )

        await running.ask(move)
        found = await running.difference()
        assert (found.missing, found.extra) == ({"skill-00007"}, {"skill-00003-copy"})
        await sync(running)
        await running.until_in_sync()
        assert await running.ask(stored) == before


# Values that the mirror never writes: JSON of another kind, and on SQLite, whose columns take anything, no JSON at all.
OF_ANOTHER_KIND = {
    "tags": '"a text"', "python_packages": "null", "npm_packages": '{"a": 1}', "metadata": "[]", "extra": "0",
}  # fmt: skip
NOT_READABLE: dict[str, object] = {
    "metadata": "not JSON", "extra": "{", "python_packages": "[1,", "description": b"\xff\xfe", "code": b"bytes",
    "rating_count": "many", "remote_created_at": "yesterday", "updated_stamp": "soon",
    "arrival": "first", "rating_arrival": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("garbage", [OF_ANOTHER_KIND, NOT_READABLE], ids=["other-json", "garbage"])
async def test_a_row_that_cannot_even_be_read_is_named_and_healed(garbage: dict[str, object]) -> None:
    if garbage is NOT_READABLE and connection.vendor != "sqlite":
        garbage = {"updated_stamp": "soon", "fingerprint": ""}  # PostgreSQL's columns take no other garbage
    async with live(len(garbage)) as (server, running):
        before = await running.ask(stored)

        def spoil() -> None:
            for number, (column, value) in enumerate(garbage.items()):
                update(Skill._meta.db_table, {column: value}, "skill_id", f"skill-{number:05}")

        await running.ask(spoil)
        found = await running.difference()
        for number, column in enumerate(garbage):
            assert column in found.different[f"skill-{number:05}"], found.different
        # A live message about such a row does not end the daemon.
        for number, _ in enumerate(garbage):
            server.market.put_skill({"skill_id": f"skill-{number:05}", "version": "2.0.0", "name": f"Skill {number}"})
        applied = len(garbage) - ("updated_stamp" in garbage)  # a time that nothing is newer than
        await running.until_db(
            lambda: Skill.objects.filter(version="2.0.0").count() == applied, "the messages are applied"
        )
        await running.ask(age_runs, 24)
        await sync(running)
        assert (await running.difference()).in_sync
        after = await running.ask(stored)
        for key, row in before.items():
            changed = {name for name, value in row.items() if after[key][name] != value}
            assert changed <= {
                "version",
                "remote_updated_at",
                "updated_stamp",
                "fingerprint",
                "rating_at",
                "rating_stamp",
            }


@pytest.mark.parametrize(("column", "value"), [("description", b"\xff"), ("skill_count", "many"), ("arrival", "first")])
async def test_a_category_that_cannot_be_read_is_healed(sqlite: None, column: str, value: object) -> None:
    async with live(3) as (_, running):
        before = await running.ask(stored)
        await running.ask(update, Category._meta.db_table, {column: value}, "name", "automation")
        assert (await running.difference()).different_categories == {
            "automation": ["description", "skill_count", "remote_created_at", "remote_updated_at", "updated_stamp"]
        }
        await running.ask(age_runs, 24)
        await sync(running)
        assert await running.ask(stored) == before


def test_values_are_compared_as_json_and_not_as_python() -> None:
    assert same_value({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]})
    for one, other in ((True, 1), (0, False), ([True], [1]), ({"a": 0}, {"a": False}), ("1", 1), ([], {}), (None, 0)):
        assert not same_value(one, other) and not same_value(other, one)


def test_a_day_is_counted_with_the_time_until_the_next_run() -> None:
    from marketplace_sync.mirror.lease import acquire
    from marketplace_sync.mirror.runs import Progress, begin_run, end_run

    lease = acquire("here:1")
    hour = timedelta(hours=1)

    def run(*, reads: bool = True, **options: Any) -> bool:
        begun = begin_run(lease, "poll", **options)
        end_run(lease, begun.id, SyncRun.State.DONE, Progress(), unclean_reason="", by_row=begun.by_row and reads)
        return begun.by_row

    assert run(reads=False), "none was ever"
    assert run(), "that one did not read all"
    assert not run(interval=11 * hour)
    assert run(interval=12.5 * hour)
    SyncRun.objects.update(started_at=datetime.now(UTC) - 23 * hour)
    assert not run(interval=hour / 4)
    SyncRun.objects.update(started_at=datetime.now(UTC) - 23.6 * hour)
    assert run(interval=hour / 4)
    assert run(by_row=True)
