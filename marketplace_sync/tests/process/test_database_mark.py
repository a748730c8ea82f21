"""A test that may be left out on PostgreSQL gets at no database: the mark `database` is right of itself."""

import os
import sys

import pytest
from django.db import connection

from marketplace_sync.models import Skill
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program


def marked(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("database") is not None


@pytest.mark.django_db
def test_who_has_djangos_mark_is_marked(request: pytest.FixtureRequest) -> None:
    assert marked(request)
    assert not Skill.objects.exists()


def test_who_asks_for_a_fixture_with_the_database_is_marked_however_far_behind_it_stands(
    request: pytest.FixtureRequest, program_environment: Environment
) -> None:
    assert marked(request)
    assert str(connection.settings_dict["NAME"]) in program_environment()["DATABASE_URL"]


def test_who_is_not_marked_finds_no_database(request: pytest.FixtureRequest) -> None:
    assert not marked(request)
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Skill.objects.exists()


async def test_nor_does_a_program_that_it_starts() -> None:
    program = Program([sys.executable, str(MANAGE), "migrate", "--check"], os.environ, MANAGE.parent)
    try:
        ended = await program.ended()
    finally:
        program.end()
    assert ended.status == 1
    assert "DATABASE_URL names a file in a folder that does not exist" in ended.err


@pytest.mark.parametrize("fixture", ["db", "transactional_db", "program_environment"])
def test_nor_is_it_to_be_had_by_asking_late(request: pytest.FixtureRequest, fixture: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="requested late"):
        request.getfixturevalue(fixture)
