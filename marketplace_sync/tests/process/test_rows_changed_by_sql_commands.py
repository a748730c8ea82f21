"""Commands over rows that somebody changed by SQL."""

import json

import pytest
from django.db import connection

from marketplace_sync.mirror.search_index import misfiled_skills
from marketplace_sync.models import FeedChange, Skill
from marketplace_sync.tests.database.test_rows_changed_by_sql import (
    CATEGORY_CHANGES,
    SKILL_CHANGES,
    fill,
    stored,
    tamper,
    update,
)
from marketplace_sync.tests.support.harness import CATEGORY
from marketplace_sync.tests.support.processes import Environment, mirrored

pytestmark = pytest.mark.django_db(transaction=True)


async def test_verifysync_names_each_changed_column_and_repair_restores_it(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=0) as (server, watched, start):
        fill(server)
        assert (await start.run("runsync", "--once")).status == 0
        before = await watched.ask(stored)
        assert (await start.run("verifysync")).status == 0
        await watched.ask(tamper)
        damaged = await watched.ask(stored)

        found = await start.run("verifysync", "--json")
        assert found.status == 1
        report = json.loads(found.out)
        skills = {column: f"skill-{number:05}" for number, column in enumerate(SKILL_CHANGES)}
        assert report["missing"] == [skills.pop("skill_id")] and report["extra"] == ["planted"]
        assert report["withheld"] == 0
        for column, skill_id in skills.items():
            assert column.removesuffix("_id") in report["different"][skill_id], report["different"]
        assert report["different"].keys() == set(skills.values())
        for column in ("name", "tags", "category_id", "metadata", "extra", "average_rating", "remote_created_at"):
            assert report["different"][skills[column]] == [column.removesuffix("_id")]
        assert report["different"][skills["fingerprint"]] == ["fingerprint"]
        categories = {column: f"category-{number}" for number, column in enumerate(CATEGORY_CHANGES)}
        assert report["categories"]["missing"] == [categories.pop("name")] and report["categories"]["extra"] == [
            "planted"
        ]
        for column, name in categories.items():
            assert column in report["categories"]["different"][name], report["categories"]
        assert await watched.ask(stored) == damaged, "only looked at"

        repaired = await start.run("verifysync", "--repair")
        assert (repaired.status, repaired.out.splitlines()[-1]) == (0, "In sync with the marketplace.")
        assert await watched.ask(stored) == before


async def test_a_single_sync_compares_rows_whenever_it_is_run(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=3) as (_, watched, start):
        assert (await start.run("runsync", "--once")).status == 0
        before = await watched.ask(stored)
        await watched.ask(update, Skill._meta.db_table, {"name": "x", "code": "y"}, "skill_id", "skill-00001")
        foreseen = await start.run("runsync", "--dry-run")
        assert foreseen.out.splitlines()[0] == "update skill-00001"
        assert (await start.run("runsync", "--once")).out == (
            "3 skills listed: 0 created, 1 updated, 0 removed, 2 unchanged, 0 refused.\n"
        )
        assert await watched.ask(stored) == before
        # Who follows the feed hears what was healed.
        change = await watched.ask(FeedChange.objects.latest, "seq")
        assert (change.kind, change.data) == ("skill_updated", {"name": "Skill 1", "code": "def skill_1(): ..."})


async def test_a_later_update_with_every_field_equal_is_mentioned_and_does_not_count(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment, skills=3) as (server, _, start):
        server.market.put_category({**CATEGORY, "name": "c"}, announce=False)
        assert (await start.run("runsync", "--once")).status == 0
        server.market.skills["skill-00001"]["updated_at"] = "2026-02-01T00:00:00Z"
        server.market.categories["c"]["updated_at"] = "2099-02-01T00:00:00.5Z"  # too far ahead: no time at all
        found = await start.run("verifysync", "--json")
        report = json.loads(found.out)
        assert (found.status, report["later"], report["different"]) == (0, ["skill-00001"], {})
        plain = await start.run("verifysync")
        assert plain.status == 0 and "  skill-00001\n" in plain.out
        # An earlier one is a difference: the mirror claims news that the marketplace does not have.
        server.market.skills["skill-00001"]["updated_at"] = "2025-02-01T00:00:00Z"
        found = await start.run("verifysync", "--json")
        assert (found.status, json.loads(found.out)["different"]) == (1, {"skill-00001": ["remote_updated_at"]})


def spoil_search() -> None:
    """Leave a skill out of what search finds, another out of what its tag finds, and add one that is not there."""
    first, second = Skill.objects.filter(skill_id__in=["skill-00001", "skill-00002"]).values_list("pk", flat=True)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("DELETE FROM marketplace_sync_skill_words WHERE skill = %s", [first])
            cursor.execute("UPDATE marketplace_sync_skill_words SET tags = '[]' WHERE skill = %s", [second])
            cursor.execute(
                "INSERT INTO marketplace_sync_skill_words (skill, words, tags) VALUES (999999, to_tsvector('a'), '[]')"
            )
            return
        cursor.execute(
            "INSERT INTO marketplace_sync_skill_words (marketplace_sync_skill_words, rowid, words) "
            "SELECT 'delete', id, name || ' ' || description || ' test' FROM marketplace_sync_skill WHERE id = %s",
            [first],
        )
        cursor.execute("DELETE FROM marketplace_sync_skill_tag WHERE skill = %s", [second])
        cursor.execute("INSERT INTO marketplace_sync_skill_tag (tag, skill) VALUES ('test', 999999)")


async def test_skills_that_search_does_not_find_are_named_and_repaired(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=5) as (_, watched, start):
        assert (await start.run("runsync", "--once")).status == 0
        assert await watched.ask(misfiled_skills) == set()
        await watched.ask(spoil_search)
        assert await watched.ask(lambda: Skill.objects.matching("skill 1").count()) == 0
        found = await start.run("verifysync", "--json")
        report = json.loads(found.out)
        assert (found.status, report["level"]) == (1, False)
        assert report["misfiled"] == ["row 999999", "skill-00001", "skill-00002"]
        assert (report["missing"], report["extra"], report["different"]) == ([], [], {})
        assert (await start.run("verifysync", "--repair")).status == 0
        assert await watched.ask(lambda: Skill.objects.matching("skill 1").count()) == 1
        assert await watched.ask(lambda: Skill.objects.tagged("test").count()) == 5
