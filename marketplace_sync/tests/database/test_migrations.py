"""Migrations with hand-written changes of tables, on tables with rows."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor

APP = "marketplace_sync"
PARSED, NOT_PARSED = (APP, "0010_tags_beside_words"), (APP, "0011_json_not_parsed_again")
CHECKED = {
    "marketplace_sync_skill": {"python_packages", "npm_packages", "tags", "metadata", "extra"},
    "marketplace_sync_change": {"fields", "data"},
}
SKILL = (
    "INSERT INTO marketplace_sync_skill (skill_id, name, description, version, code, command, python_packages, "
    "npm_packages, tags, metadata, rating_count, extra, synced_at, arrival, rating_arrival, fingerprint) "
    "VALUES (%s, 'a name', 'words', '1', '', '', '[]', '[]', '[\"tagged\"]', %s, 0, '{}', '2026-01-01', 0, 0, '')"
)


@pytest.fixture
def parsed(sqlite: None, transactional_db: None) -> Iterator[None]:
    """Migrate to the tables with a JSON check, with a skill in them."""
    migrate(PARSED)
    run(SKILL, ("one", "{}"))
    yield
    migrate(PARSED)  # also after a test in which the migration changed nothing
    migrate(*MigrationExecutor(connection).loader.graph.leaf_nodes(APP))


@pytest.mark.usefixtures("parsed")
def test_json_columns_lose_their_check_on_sqlite() -> None:
    assert checked() == CHECKED
    with pytest.raises(IntegrityError):
        run(SKILL, ("two", "{"))
    made = objects()

    migrate(NOT_PARSED)

    assert checked() == {"marketplace_sync_skill": set(), "marketplace_sync_change": set()}
    assert run("PRAGMA integrity_check") == [("ok",)]
    assert objects() == made  # triggers and indexes
    run(SKILL, ("two", "{"))  # an open connection knows the change
    assert run("SELECT count(*) FROM marketplace_sync_skill_tag WHERE tag = 'tagged'") == [(2,)]
    with pytest.raises(IntegrityError):  # other constraints stay
        run("UPDATE marketplace_sync_skill SET rating_count = -1")


@pytest.mark.usefixtures("parsed")
def test_the_migration_of_json_columns_can_be_reversed() -> None:
    before = run("SELECT name, sql FROM sqlite_master ORDER BY name")
    migrate(NOT_PARSED)
    assert run("SELECT name, sql FROM sqlite_master ORDER BY name") != before
    migrate(PARSED)
    assert run("SELECT name, sql FROM sqlite_master ORDER BY name") == before
    assert run("SELECT skill_id FROM marketplace_sync_skill") == [("one",)]


@pytest.mark.usefixtures("parsed")
def test_a_sqlite_without_writable_schema_keeps_the_checks() -> None:
    def defensive(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        """Ignore the pragma, as a SQLite in defensive mode does; it refuses the change later."""
        return execute("SELECT 1" if sql == "PRAGMA writable_schema = ON" else sql, *rest)

    with connection.execute_wrapper(defensive):
        migrate(NOT_PARSED)
    assert checked() == CHECKED
    run(SKILL, ("two", "{}"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["0020_suspended_state", "0021_plain_names"])
def test_a_new_name_changes_no_table(name: str) -> None:
    """The release before runs on the same tables (docs/operations.md, Upgrading)."""
    loader = MigrationExecutor(connection).loader
    migration = loader.get_migration(APP, name)
    with connection.schema_editor(collect_sql=True, atomic=False) as editor:
        migration.apply(loader.project_state(migration.dependencies), editor, collect_sql=True)
    assert [line for line in editor.collected_sql if not line.startswith("--")] == []


def migrate(*to: tuple[str, str]) -> None:
    MigrationExecutor(connection).migrate(to)


def run(sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def checked() -> dict[str, set[str]]:
    """Return the columns of each table that SQLite checks as JSON."""
    return {
        table: {name for name in names if f'JSON_VALID("{name}")' in text_of(table)} for table, names in CHECKED.items()
    }


def text_of(table: str) -> str:
    ((text,),) = run("SELECT sql FROM sqlite_master WHERE name = %s", (table,))
    return str(text)


def objects() -> list[tuple[Any, ...]]:
    return run("SELECT type, name, sql FROM sqlite_master WHERE type <> 'table' ORDER BY name")
