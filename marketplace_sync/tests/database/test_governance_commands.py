"""Commands and the rights of their authors: one per actor and arguments, none without the right to it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import Client
from django.urls import reverse

from marketplace_sync.governance.acceptance import refusal_reason
from marketplace_sync.governance.actions import (
    Disable,
    DisableAgent,
    Reconnect,
    ReplayDeadLetter,
    ReplayDeadLetters,
    RevokeKey,
    RotateKey,
    SetMaturity,
    SyncNow,
)
from marketplace_sync.governance.actors import COMMAND_LINE, Actor, actor_of
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.mirror.commands import accept
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import Agent, AgentKey, AuditRow, Command, DeadLetter, SyncRun
from marketplace_sync.tests.support.admin_rows import dead_letter
from marketplace_sync.tests.support.api_actors import ApiClient, new_key
from marketplace_sync.tests.support.harness import marketplace, mirror

pytestmark = pytest.mark.django_db(transaction=True)

Users = get_user_model().objects


def agent(name: str = "scout") -> Actor:
    actor = actor_of(new_key(name, Maturity.AUTONOMOUS)[0].user)
    assert actor is not None
    return actor


def person(name: str = "ada", **flags: bool) -> Actor:
    user = Users.create_user(name, is_staff=True, **flags)
    user.user_permissions.add(Permission.objects.get(codename="manage_sync"))
    actor = actor_of(Users.get(pk=user.pk))
    assert actor is not None
    return actor


def test_a_repeated_post_returns_the_same_command_and_is_audited() -> None:
    client = ApiClient(new_key("scout", Maturity.AUTONOMOUS)[1])
    answers = [client.ask("/api/admin/sync/trigger/", {"reason": why}) for why in ("first", "second")]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert client.ask("/api/admin/websocket/reconnect/").json()["id"] != answers[0].json()["id"]
    rows = AuditRow.objects.filter(verb="sync").order_by("id")
    assert [(row.reason, row.command_id) for row in rows] == [
        ("first", answers[0].json()["id"]), ("second", answers[0].json()["id"]),
    ]  # fmt: skip


def test_simultaneous_requests_of_one_actor_make_one_command() -> None:
    actor = agent()
    ready, ids, problems = threading.Barrier(6), [], []

    def ask() -> None:
        try:
            ready.wait(20)
            ids.append(SyncNow(actor=actor).perform().pk)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            problems.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (problems, len(ids), len(set(ids)), Command.objects.count()) == ([], 6, 1, 1)


def test_the_21st_open_command_of_an_actor_is_429() -> None:
    client = ApiClient(new_key("scout", Maturity.AUTONOMOUS)[1])
    ids = [dead_letter(number).pk for number in range(25)]
    answers = [client.ask(f"/api/admin/dead-letters/{pk}/replay/") for pk in ids]
    assert [answer.status_code for answer in answers] == [202] * 20 + [429] * 5
    assert (answers[-1].json()["code"], answers[-1]["Retry-After"]) == ("too_many_commands", "5")
    assert Command.objects.count() == 20
    # Others are not limited.
    assert Disable(actor=person()).perform().state == "pending"


WITHDRAWALS: dict[str, tuple[Callable[[], Actor], Callable[[], Any]]] = {
    "agent disabled": (agent, lambda: Agent.objects.update(enabled=False)),
    "agent lowered": (agent, lambda: Agent.objects.update(maturity="SUPERVISED")),
    "superuser demoted": (
        lambda: person(is_superuser=True), lambda: Users.update(is_superuser=False, is_staff=False)
    ),
    "permission taken": (person, lambda: Users.get().user_permissions.clear()),
    "no longer staff": (person, lambda: Users.update(is_staff=False)),
    "deactivated": (person, lambda: Users.update(is_active=False)),
    "deleted": (person, lambda: Users.all().delete()),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHDRAWALS)
def test_a_command_expires_when_its_author_loses_the_right(name: str) -> None:
    make, withdraw = WITHDRAWALS[name]
    actor = make()
    lease = acquire("host:1")
    kept, command = Reconnect(actor=actor).perform(), Disable(actor=actor).perform()
    assert accept(lease, kept.pk, refusal_reason)
    withdraw()
    before = AuditRow.objects.count()
    assert not accept(lease, command.pk, refusal_reason)
    command.refresh_from_db()
    assert (command.state, command.result["code"]) == ("expired", "rights_withdrawn")
    assert actor.ident in command.result["detail"]
    row = AuditRow.objects.latest("id")
    assert AuditRow.objects.count() == before + 1
    assert (row.actor, row.actor_kind, row.verb, row.outcome, row.origin, row.command_id) == (
        actor.ident, actor.kind, "disable", "refused", "daemon", command.pk,
    )  # fmt: skip


def test_a_new_account_of_the_same_name_inherits_no_command() -> None:
    command = Disable(actor=agent("scout")).perform()
    Command.objects.update(requested_by="user:agent:scout")
    command.refresh_from_db()
    assert "may not do this any more" in refusal_reason(command)


@pytest.mark.parametrize(
    "withdraw",
    [
        lambda: DisableAgent("scout", actor=COMMAND_LINE),
        lambda: SetMaturity("scout", "INTERN", actor=COMMAND_LINE),
        lambda: RevokeKey(AgentKey.objects.get().pk, actor=COMMAND_LINE),
        lambda: RotateKey(AgentKey.objects.get().pk, actor=COMMAND_LINE),
    ],
)
def test_withdrawn_rights_expire_pending_commands(withdraw: Callable[[], Any]) -> None:
    scout, other = agent("scout"), person()
    lease = acquire("host:1")
    accepted, pending, foreign = (
        Reconnect(actor=scout).perform(), Disable(actor=scout).perform(), Disable(actor=other).perform(),
    )  # fmt: skip
    assert accept(lease, accepted.pk, refusal_reason)
    withdraw().perform()
    assert [
        Command.objects.get(pk=command.pk).state for command in (accepted, pending, foreign)
    ] == ["accepted", "expired", "pending"]  # fmt: skip
    assert AuditRow.objects.latest("id").details["expired_commands"] == [pending.pk]


def test_a_promoted_agent_keeps_its_commands() -> None:
    command = Disable(actor=agent()).perform()
    Agent.objects.update(maturity="SUPERVISED")
    SetMaturity("scout", "AUTONOMOUS", actor=COMMAND_LINE).perform()
    command.refresh_from_db()
    assert command.state == "pending"


def test_demoting_a_person_in_the_admin_expires_pending_commands(client: Client) -> None:
    command = Disable(actor=person("ada")).perform()
    client.force_login(Users.create_user("root", is_staff=True, is_superuser=True))
    page = reverse("admin:auth_user_change", args=(Users.get(username="ada").pk,))
    form = {"username": "ada", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00", "is_active": "on"}
    assert client.post(page, form).status_code == 302
    command.refresh_from_db()
    assert command.state == "expired"
    assert AuditRow.objects.latest("id").details["expired_commands"] == [command.pk]


async def test_a_persons_disable_comes_before_all_commands_of_agents() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        agents = [await running.ask(agent, f"agent-{number}") for number in range(6)]
        ids = [(await running.ask(dead_letter, number)).pk for number in range(19)]

        def flood() -> None:
            for actor in agents:
                SyncNow(actor=actor).perform()
                for pk in ids:
                    ReplayDeadLetter(pk, actor=actor).perform()

        await running.ask(flood)
        asked = await running.ask(Disable(actor=await running.ask(person)).perform)

        def done() -> bool:
            return Command.objects.filter(pk=asked.pk, state="done").exists()

        await running.until_db(done, "the stream is disabled")
        await running.ask(asked.refresh_from_db)
        # In 2 s, on a machine that has no more to do than this; however busy it is, two looks' worth of agents at most.
        meanwhile = Command.objects.filter(accepted_at__gt=asked.requested_at, accepted_at__lt=asked.finished_at)
        assert await running.ask(meanwhile.filter(requested_by__startswith="agent:").count) <= 16
        assert await running.ask(Command.objects.filter(finished_at=None).exists)
        await running.until_db(lambda: not Command.objects.filter(finished_at=None).exists(), "all are answered")


async def test_one_command_replays_many_dead_letters() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        dead_letters = [await running.ask(dead_letter, number) for number in range(3)]
        await running.ask(DeadLetter.objects.filter(pk=dead_letters[1].pk).update, key="", state="open")
        action = ReplayDeadLetters([row.pk for row in dead_letters], actor=COMMAND_LINE)
        asked = await running.ask(action.perform)
        await running.until_db(lambda: Command.objects.get(pk=asked.pk).finished_at is not None, "it is answered")
        await running.ask(asked.refresh_from_db)
        assert (asked.state, asked.result["replayed"], asked.result["failed"]) == ("done", 2, 1)
        assert f"Dead letter {dead_letters[1].pk}: " in asked.result["detail"]
        assert await running.ask(DeadLetter.objects.filter(state="open").count) == 1


async def test_a_sync_submitted_again_while_it_runs_is_followed_by_another() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        server.faults.add("slow-body", times=1, match="/api/", seconds=0.5)
        actor = await running.ask(agent)
        first = await running.ask(SyncNow(actor=actor).perform)

        def begun() -> bool:
            return SyncRun.objects.filter(state="running").exists()

        await running.until_db(begun, "the sync has begun")
        begun_before = await running.ask(lambda: SyncRun.objects.get(state="running").pk)
        again = await running.ask(SyncNow(actor=actor).perform)
        assert again.pk == first.pk
        await running.until_db(lambda: Command.objects.get(pk=first.pk).state == "done", "it is done")
        await running.ask(first.refresh_from_db)
        assert first.result["run"] > begun_before
