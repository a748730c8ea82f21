"""`manage.py createagent`."""

import json
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from marketplace_sync.demo import make_agent
from marketplace_sync.governance.actions import DisableAgent
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.keys import find_key
from marketplace_sync.models import Agent, AgentKey, AuditRow

pytestmark = pytest.mark.django_db


def test_createagent_registers_an_agent_and_prints_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("createagent", "scout", "--maturity", "supervised", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed.keys() == {"agent", "maturity", "key"}
    assert (printed["agent"], printed["maturity"]) == ("scout", "SUPERVISED")
    found = find_key(printed["key"])
    assert found is not None and found.expiry is None
    assert (found.agent.name, found.agent.maturity) == ("scout", "SUPERVISED")
    rows = AuditRow.objects.order_by("pk").values_list("actor", "verb", "target", "origin")
    assert list(rows) == [
        ("command line", "register_agent", "agent scout", "command line"),
        ("command line", "issue_key", "agent scout", "command line"),
    ]


def test_createagent_prints_the_key_alone_on_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("createagent", "scout", "--maturity", "INTERN", "--expires-days", "2.5")
    found = find_key(capsys.readouterr().out.splitlines()[-1])
    assert found is not None
    assert abs(found.expiry - found.created - timedelta(days=2.5)) < timedelta(seconds=1)


def test_createagent_refuses_a_name_that_is_taken() -> None:
    call_command("createagent", "scout", "--maturity", "INTERN")
    with pytest.raises(CommandError, match="An agent scout is registered already") as error:
        call_command("createagent", "scout", "--maturity", "AUTONOMOUS")
    assert error.value.returncode == 1
    assert (Agent.objects.get().maturity, AgentKey.objects.count()) == ("INTERN", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("Scout", "--maturity", "INTERN"),
        ("scout", "--maturity", "GENIUS"),
        ("scout",),
        ("scout", "--maturity", "INTERN", "--expires-days", "0"),
        ("scout", "--maturity", "INTERN", "--expires-days", "nan"),
        ("scout", "--maturity", "INTERN", "--expires-days", "1e12"),
    ],
)
def test_createagent_with_invalid_arguments_registers_no_agent(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("createagent", *arguments)
    assert not Agent.objects.exists()


def test_the_demos_agent_gets_a_new_key_each_time_even_if_disabled() -> None:
    first = find_key(make_agent())
    DisableAgent("demo", actor=COMMAND_LINE).perform()
    second = find_key(make_agent())
    assert first is not None and second is not None and first != second
    assert (second.agent.name, second.agent.maturity) == ("demo", "AUTONOMOUS")
    assert second.expiry - second.created < timedelta(days=1, seconds=1)
