"""The mark `database` is always right: a test without it reaches no database."""

import os
import sys

import pytest
from django.db import connection

from marketplace_sync.models import Skill
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program


def marked(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("database") is not None


@pytest.mark.django_db
def test_djangos_mark_sets_ours(request: pytest.FixtureRequest) -> None:
    assert marked(request)
    assert not Skill.objects.exists()


def test_a_fixture_that_needs_the_database_sets_the_mark_also_indirectly(
    request: pytest.FixtureRequest, program_environment: Environment
) -> None:
    assert marked(request)
    assert str(connection.settings_dict["NAME"]) in program_environment()["DATABASE_URL"]


def test_without_the_mark_there_is_no_database(request: pytest.FixtureRequest) -> None:
    assert not marked(request)
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Skill.objects.exists()


async def test_without_the_mark_programs_find_no_database() -> None:
    program = Program([sys.executable, str(MANAGE), "migrate", "--check"], os.environ, MANAGE.parent)
    try:
        ended = await program.ended()
    finally:
        program.end()
    assert ended.status == 1
    assert "DATABASE_URL names a file in a folder that does not exist" in ended.err


@pytest.mark.parametrize("fixture", ["db", "transactional_db", "program_environment"])
def test_without_the_mark_a_late_request_fails(request: pytest.FixtureRequest, fixture: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="requested late"):
        request.getfixturevalue(fixture)
