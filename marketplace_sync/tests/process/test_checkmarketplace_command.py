"""`manage.py checkmarketplace` as a program: its lines, its hints and its exit status."""

import asyncio
import json
import os
import sys

import pytest

from marketplace_sync.simulator.variant import Variant
from marketplace_sync.tests.support.harness import TOKEN, marketplace
from marketplace_sync.tests.support.processes import MANAGE, Ended, run_program
from marketplace_sync.tests.unit.test_checkmarketplace import STEPS

# The command.


def command(*options: str, **environment: str) -> Ended:
    """`manage.py checkmarketplace` where there is no database."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATOM_")}
    own |= {"DATABASE_URL": "postgres://nobody@127.0.0.1:9/none", "DJANGO_ENV_FILE": "", "LOG_LEVEL": "DEBUG"}
    return run_program([sys.executable, str(MANAGE), "checkmarketplace", *options], own | environment, within=200)


async def test_the_command_prints_a_line_per_step_and_exits_0() -> None:
    async with marketplace(2) as server:
        environment = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": server.token}
        ended = await asyncio.to_thread(command, **environment)
        as_json = await asyncio.to_thread(command, "--json", **environment)
    lines = ended.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", step] for step in ["settings", *STEPS]]
    assert ended.status == as_json.status == 0
    printed = json.loads(as_json.out)
    assert [sorted(step) for step in printed] == [["detail", "hint", "ok", "seconds", "step"]] * 9
    assert [step["step"] for step in printed] == ["settings", *STEPS]
    assert TOKEN not in f"{ended}{as_json}".replace(f"'ATOM_SAAS_API_TOKEN': '{TOKEN}'", "")


async def test_settings_that_are_unwise_are_mentioned() -> None:
    async with marketplace(2, variant=Variant(base="/api/v1", prefix="/api/v1")) as server:
        environment = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": server.token}
        ended = await asyncio.to_thread(command, **environment)
    assert ended.status == 0
    assert "ATOM_SAAS_API_URL ends in /api/v1, which ATOM_SAAS_API_PREFIX adds" in ended.out.splitlines()[0]


async def test_the_command_ends_with_1_and_the_hint_at_the_first_failure() -> None:
    async with marketplace(2) as server:
        environment = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": "another-token"}
        ended = await asyncio.to_thread(command, **environment)
        as_json = await asyncio.to_thread(command, "--json", **environment)
    assert (ended.status, as_json.status) == (1, 1)
    *_, failed, hint = ended.out.splitlines()
    assert failed.split()[:2] == ["FAILED", "token"]
    assert "ATOM_SAAS_API_TOKEN" in hint
    assert "another-token" not in ended.out + ended.err + as_json.out + as_json.err
    assert [step["ok"] for step in json.loads(as_json.out)] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({}, "ATOM_SAAS_API_URL"),
        ({"ATOM_SAAS_API_URL": "http://h", "ATOM_SAAS_API_TOKEN": "a-token", "ATOM_SAAS_API_AUTH": "a b"}, "API_AUTH"),
        ({"ATOM_SAAS_API_URL": "http://h", "ATOM_SAAS_API_TOKEN": "a-token", "ATOM_SAAS_ENABLED": "false"}, "ENABLED"),
        ({"ATOM_SAAS_API_URL": "http://h", "ATOM_SAAS_API_TOKEN_FILE": "/no/such"}, "ATOM_SAAS_API_TOKEN_FILE"),
    ],
)
def test_settings_that_can_not_work_are_the_first_step(environment: dict[str, str], setting: str) -> None:
    ended = command("--json", **environment)
    (step,) = json.loads(ended.out)
    assert (ended.status, step["step"], step["ok"]) == (1, "settings", False)
    assert setting in step["hint"]
