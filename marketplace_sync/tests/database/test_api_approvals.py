"""Approving and dismissing removals by API: with what was seen, by a person, also after newer runs."""

from typing import Any

import pytest

from marketplace_sync.governance.acceptance import refusal_reason
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.mirror.commands import accept
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import AuditRow, Command, SyncRun
from marketplace_sync.tests.support.admin_rows import held_run
from marketplace_sync.tests.support.api_actors import ApiClient, agent, person

pytestmark = pytest.mark.django_db(transaction=True)


def approve(run: SyncRun | int | str) -> str:
    return f"/api/admin/sync/runs/{getattr(run, 'pk', run)}/approve/"


def dismiss(run: SyncRun) -> str:
    return f"/api/admin/sync/runs/{run.pk}/dismiss/"


SEEN = {"held_count": 2, "reason": "The vendor withdrew them."}


@pytest.fixture
def root() -> ApiClient:
    return person(is_superuser=True)


def test_a_person_approves_with_the_count_and_a_reason(root: ApiClient) -> None:
    run = held_run("s1", "s2")
    answer = root.ask(approve(run), SEEN)
    assert (answer.status_code, answer.json()["args"], answer.json()["reason"]) == (
        202, {"run": run.pk}, "The vendor withdrew them.",
    )  # fmt: skip
    assert AuditRow.objects.get(verb="approve_removal").details == {"held": 2, "seen": 2}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "held_count"), ({}, "held_count"), ({"reason": "x"}, "held_count"), ({"held_count": 2}, "reason"),
        ({"held_count": 2, "reason": " "}, "reason"), ({"held_count": "2", "reason": "x"}, "held_count"),
        ({"held_count": True, "reason": "x"}, "held_count"), ({"held_count": 2.0, "reason": "x"}, "held_count"),
        ({"held_count": -2, "reason": "x"}, "held_count"), ({"held_count": None, "reason": "x"}, "held_count"),
        ({"held_count": 2, "reason": "x" * 1001}, "reason"), (SEEN | {"run": 1}, "run"),
    ],
)  # fmt: skip
def test_approval_without_the_seen_count_or_reason_is_400(root: ApiClient, body: Any, field: str) -> None:
    answer = root.ask(approve(held_run("s1", "s2")), body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert not Command.objects.exists() and not AuditRow.objects.filter(verb="approve_removal").exists()


@pytest.mark.parametrize("count", [0, 1, 3, 10**30])
def test_approval_with_another_count_is_409_held_changed(root: ApiClient, count: int) -> None:
    answer = root.ask(approve(held_run("s1", "s2")), SEEN | {"held_count": count})
    assert (answer.status_code, answer.json()["code"]) == (409, "held_changed")
    assert not Command.objects.exists()


def test_approving_a_run_without_removals_on_hold_is_409_and_an_unknown_run_404(root: ApiClient) -> None:
    for state in ("done", "failed", "interrupted", "approved", "superseded"):
        run = held_run("s1", "s2")
        SyncRun.objects.filter(pk=run.pk).update(state=state)
        answer = root.ask(approve(run), SEEN)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_possible"), state
    for number in (999, 2**63, 10**40, "x"):
        assert root.ask(approve(number), SEEN).status_code == 404


def test_superseded_run_can_be_approved_while_a_newer_one_lists_the_same_skills(root: ApiClient) -> None:
    old = held_run("s1", "s2")
    SyncRun.objects.update(state="superseded")
    newer = held_run("s3", "s4", "s5")
    assert root.ask(approve(old), SEEN).json()["code"] == "not_possible"
    SyncRun.objects.filter(pk=newer.pk).update(state="superseded")
    held_run("s2", "s3", "s4")
    assert root.ask(approve(old), SEEN).status_code == 202


@pytest.mark.parametrize("body", [None, {}, SEEN, {"held_count": "x"}])
def test_agent_may_not_approve_or_dismiss(body: Any) -> None:
    run = held_run("s1", "s2")
    answer = agent().ask(approve(run), body)
    assert (answer.status_code, answer.json()["code"]) == (403, "person_required")
    row = AuditRow.objects.get(verb="approve_removal")
    assert (row.actor, row.outcome, row.required, row.actual) == (
        "agent:a-autonomous", "refused", "PERSON", "AUTONOMOUS",
    )  # fmt: skip
    assert not Command.objects.exists()


def test_agent_of_too_little_maturity_gets_maturity_required() -> None:
    answer = agent(Maturity.SUPERVISED).ask(approve(held_run("s1", "s2")), SEEN)
    assert answer.json()["code"] == "maturity_required"


def test_agents_may_approve_with_the_setting(settings: Any) -> None:
    settings.APPROVALS_BY_AGENTS = "true"
    client = agent()
    run = held_run("s1", "s2")
    assert client.ask(approve(run), SEEN | {"held_count": 1}).json()["code"] == "held_changed"
    command = client.ask(approve(run), SEEN).json()
    # The daemon asks again: the setting may have been changed since.
    settings.APPROVALS_BY_AGENTS = "false"
    assert not accept(acquire("host:1"), command["id"], refusal_reason)


def test_agents_may_not_approve_with_invalid_settings(settings: Any) -> None:
    settings.APPROVALS_BY_AGENTS = "true"
    settings.ATOM_SAAS_WS_PONG_TIMEOUT = "soon"
    assert agent().ask(approve(held_run("s1", "s2")), SEEN).json()["code"] == "person_required"


def test_a_dismissal_is_a_command_and_needs_no_body(root: ApiClient) -> None:
    run = held_run("s1", "s2")
    answer = root.ask(dismiss(run))
    assert (answer.status_code, answer.json()["action"], answer.json()["args"]) == (202, "dismiss", {"run": run.pk})
    assert agent().ask(dismiss(run), {"reason": "They come back tomorrow."}).status_code == 202
    SyncRun.objects.update(state="done")
    assert root.ask(dismiss(run)).status_code == 409
