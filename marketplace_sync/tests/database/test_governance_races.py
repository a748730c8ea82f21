"""Simultaneous actions of the same kind: one is performed, and each has an audit row with its outcome."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actions import (
    DisableAgent,
    DiscardDeadLetter,
    EnableAgent,
    RegisterAgent,
    RevokeKey,
    RotateKey,
    SetMaturity,
)
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.mirror.commands import EXPIRES_AFTER
from marketplace_sync.models import Agent, AgentKey, AuditRow, Command, FeedChange, Skill, SyncRun
from marketplace_sync.tests.support.admin_rows import dead_letter
from marketplace_sync.tests.support.api_actors import new_key
from marketplace_sync.tests.support.harness import marketplace, mirror

pytestmark = pytest.mark.django_db(transaction=True)

ASKERS = 4

Make = Callable[[], Callable[[], Action[Any]]]


def disabled() -> Callable[[], Action[Any]]:
    new_key("scout", Maturity.INTERN)
    DisableAgent("scout", actor=COMMAND_LINE).perform()
    return lambda: EnableAgent("scout", actor=COMMAND_LINE)


def on_key(kind: type[Any]) -> Make:
    def make() -> Callable[[], Action[Any]]:
        key, _ = new_key("scout", Maturity.INTERN)
        return lambda: kind(key.pk, actor=COMMAND_LINE)

    return make


def on_agent(kind: type[Any], *more: str) -> Make:
    def make() -> Callable[[], Action[Any]]:
        new_key("scout", Maturity.INTERN)
        return lambda: kind("scout", *more, actor=COMMAND_LINE)

    return make


def on_dead_letter() -> Callable[[], Action[Any]]:
    row = dead_letter(1)
    return lambda: DiscardDeadLetter(row.pk, actor=COMMAND_LINE)


RACES: dict[str, Make] = {
    "revoke": on_key(RevokeKey),
    "rotate": on_key(RotateKey),
    "disable": on_agent(DisableAgent),
    "enable": disabled,
    "set maturity": on_agent(SetMaturity, "STUDENT"),
    "register": lambda: lambda: RegisterAgent("newcomer", "STUDENT", actor=COMMAND_LINE),
    "discard": on_dead_letter,
}


@pytest.mark.parametrize("name", RACES)
def test_of_simultaneous_actions_one_is_performed(name: str) -> None:
    make = RACES[name]()
    before, keys = AuditRow.objects.count(), AgentKey.objects.count()
    together = threading.Barrier(ASKERS)
    outcomes: Counter[str] = Counter()

    def ask() -> None:
        try:
            action = make()
            together.wait(30)
            try:
                action.perform()
                outcomes["performed"] += 1
            except NotPossibleError:
                outcomes["not_possible"] += 1
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(ASKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {"performed": 1, "not_possible": ASKERS - 1}
    audited = AuditRow.objects.order_by("id").values_list("outcome", flat=True)[before:]
    assert Counter(audited) == outcomes
    assert AgentKey.objects.count() == keys + (name == "rotate")
    assert Agent.objects.filter(name="newcomer").count() == (name == "register")


async def test_two_simultaneous_approvals_remove_once() -> None:
    async with marketplace(skills=100) as server, mirror(server) as running:
        await running.until_state("live")
        server.faults.add("shrunken-listing")
        for number in range(40, 100):
            server.market.delete_skill(f"skill-{number:05}", announce=False)
        answer = await running.command(Command.Action.SYNC)
        run = await running.ask(SyncRun.objects.get, pk=answer.result["run"])
        assert run.state == "held"
        server.faults.clear()

        def ask_twice() -> list[int]:
            now = timezone.now()
            made = [
                Command.objects.create(
                    action="approve", requested_by=COMMAND_LINE.ident, args={"run": run.pk}, requested_at=now,
                    expires_at=now + EXPIRES_AFTER,
                )
                for _ in range(2)
            ]  # fmt: skip
            return [command.pk for command in made]

        asked = await running.ask(ask_twice)
        await running.until_db(
            lambda: not Command.objects.filter(pk__in=asked, finished_at=None).exists(), "both are answered"
        )
        states = await running.ask(lambda: sorted(Command.objects.filter(pk__in=asked).values_list("state", flat=True)))
        assert states in (["done", "done"], ["done", "failed"])
        assert await running.ask(Skill.objects.count) == 40
        removals = await running.ask(
            lambda: Counter(FeedChange.objects.filter(kind="skill_deleted").values_list("key", flat=True))
        )
        assert set(removals.values()) == {1} and len(removals) == 60
        assert (await running.ask(SyncRun.objects.get, pk=run.pk)).state == "approved"
