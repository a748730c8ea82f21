"""Every action of the admin: permissions, its one audit row, and its response."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from marketplace_sync.governance.actions import ACTIONS, Action, ReplayDeadLetters, may
from marketplace_sync.governance.actors import actor_of
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import Agent, AgentKey, AuditRow, Command, DeadLetter, DismissedRemoval, WebSocketState
from marketplace_sync.tests.support.admin_rows import agent, dead_letter, held_run, person

pytestmark = pytest.mark.django_db(transaction=True)


def at(model: str, name: str, *args: Any) -> str:
    return reverse(f"admin:marketplace_sync_{model}_{name}", args=args)


@dataclass(frozen=True)
class Target:
    """The URL of an action, its form data, and the page with its button."""

    url: str
    page: str
    data: dict[str, str]


def of_stream(verb: str) -> Callable[[], Target]:
    def target() -> Target:
        acquire("test:1")  # without a daemon the buttons are disabled
        WebSocketState.objects.update_or_create(pk=1, defaults={"enabled": verb != "enable"})
        return Target(at("websocketstate", verb), at("websocketstate", "changelist"), {})

    return target


def of_dead_letter(name: str) -> Callable[[], Target]:
    def target() -> Target:
        pk = dead_letter(1).pk
        return Target(at("deadletter", name, pk), at("deadletter", "change", pk), {})

    return target


def of_held_run(name: str, **data: str) -> Callable[[], Target]:
    def target() -> Target:
        run = held_run("s1", "s2")
        return Target(at("syncrun", name, run.pk), at("syncrun", "change", run.pk), data)

    return target


def of_agent(name: str, *, enabled: bool = True, **data: str) -> Callable[[], Target]:
    def target() -> Target:
        it = agent("indexer", keys=1)
        Agent.objects.update(enabled=enabled)
        key = AgentKey.objects.get()
        args = (it.pk, key.pk) if name in ("rotate", "revoke") else (it.pk,)
        return Target(at("agent", name, *args), at("agent", "change", it.pk), data)

    return target


TARGETS: dict[str, Callable[[], Target]] = {
    "reconnect": of_stream("reconnect"),
    "disable": of_stream("disable"),
    "enable": of_stream("enable"),
    "sync": of_stream("sync"),
    "approve_removal": of_held_run("approve", held_count="2"),
    "dismiss_removal": of_held_run("dismiss"),
    "replay_dead_letter": of_dead_letter("replay"),
    "discard_dead_letter": of_dead_letter("discard"),
    "register_agent": lambda: Target(
        at("agent", "register"), at("agent", "changelist"), {"name": "new", "maturity": "STUDENT"}
    ),
    "set_maturity": of_agent("maturity", maturity="INTERN"),
    "disable_agent": of_agent("disable"),
    "enable_agent": of_agent("enable", enabled=False),
    "issue_key": of_agent("issue", expires_in="30"),
    "revoke_key": of_agent("revoke"),
    "rotate_key": of_agent("rotate"),
}
PEOPLE: dict[str, dict[str, bool]] = {
    "account": {"staff": False},
    "staff": {},
    "manager": {"manages": True},
    "superuser": {"superuser": True},
}


# The list's own form replays many; see below.
WITH_A_BUTTON = tuple(action for action in ACTIONS if action is not ReplayDeadLetters)


def test_every_action_is_tested() -> None:
    assert set(TARGETS) == {action.verb for action in WITH_A_BUTTON}


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize("action", WITH_A_BUTTON, ids=lambda action: action.verb)
def test_button_and_post_are_allowed_or_denied_by_the_policy(
    client: Client, action: type[Action[Any]], who: str
) -> None:
    target = TARGETS[action.verb]()
    user = person(who, **PEOPLE[who])
    allowed = user.is_staff and may(actor_of(user), action)
    client.force_login(user)

    shown = client.get(target.page)
    assert (f'action="{target.url}"' in shown.content.decode()) is allowed
    answer = client.post(target.url, {**target.data, "reason": "because"})

    rows = list(AuditRow.objects.all())
    if not user.is_staff:
        assert answer.status_code == 302 and "/login/" in answer["Location"]
        assert rows == []
        return
    assert answer.status_code == (
        403 if not allowed else 200 if "key" in action.verb.split("_") and action.verb != "revoke_key" else 302
    )
    (row,) = rows
    assert (row.verb, row.actor, row.allowed) == (action.verb, f"user:{who}", allowed)
    assert (row.reason, row.origin) == ("because", "admin 127.0.0.1")
    assert row.outcome == ("performed" if allowed else "refused")


@pytest.mark.parametrize("action", WITH_A_BUTTON, ids=lambda action: action.verb)
def test_get_of_an_action_shows_a_confirmation_page_and_changes_nothing(
    client: Client, action: type[Action[Any]]
) -> None:
    target = TARGETS[action.verb]()
    client.force_login(person("root", superuser=True))
    answer = client.get(target.url)
    assert answer.status_code == 200
    assert b'name="reason"' in answer.content
    client.force_login(person("viewer"))
    assert client.get(target.url).status_code == 403
    assert not AuditRow.objects.exists()


def test_post_without_a_csrf_token_changes_nothing() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("root", superuser=True))
    assert client.post(at("websocketstate", "disable")).status_code == 403
    assert not AuditRow.objects.exists() and not Command.objects.exists()


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


def test_new_key_is_shown_once_and_not_stored(root: Client) -> None:
    it = agent("indexer", keys=0)
    answer = root.post(at("agent", "issue", it.pk), {"reason": "first"})
    raw = answer.context["raw"]
    assert raw in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    key = AgentKey.objects.get()
    assert key.expiry is None
    assert raw not in root.get(at("agent", "change", it.pk)).content.decode()
    assert raw not in str(list(AgentKey.objects.values())) + str(list(AuditRow.objects.values()))
    assert raw not in str(dict(root.session))


def test_invalid_input_shows_the_form_again_with_the_error(root: Client) -> None:
    answer = root.post(at("agent", "register"), {"name": "Not A Name", "maturity": "STUDENT", "reason": "x"})
    assert answer.status_code == 400
    body = answer.content.decode()
    assert "the first is one of a-z" in body and 'value="Not A Name"' in body
    it = agent("indexer", keys=0)
    for days in ("many", "-1", "nan", "1e9"):
        assert root.post(at("agent", "issue", it.pk), {"expires_in": days}).status_code == 400, days
    assert root.post(at("websocketstate", "sync"), {"reason": "x" * 1001}).status_code == 400
    assert not AuditRow.objects.exists()


def test_impossible_action_shows_the_reason(root: Client) -> None:
    run = held_run("s1")
    type(run).objects.update(state="superseded")
    seen = {"reason": "x", "held_count": "1"}
    answer = root.post(at("syncrun", "approve", run.pk), seen, follow=True)
    assert "was superseded, and no newer one has its removals on hold" in answer.content.decode()
    assert AuditRow.objects.get().outcome == "not_possible"
    assert root.post(at("syncrun", "approve", 999), seen).status_code == 404


def test_superseded_run_is_approved_with_the_count_its_page_showed(root: Client) -> None:
    run = held_run("s1", "s2")
    page = root.get(at("syncrun", "change", run.pk)).content.decode()
    assert "Delete 2 skills" in page and '<input type="hidden" name="held_count" value="2">' in page
    type(run).objects.update(state="superseded")
    held_run("s2", "s3", "s4")
    assert "Delete 2 skills" in root.get(at("syncrun", "change", run.pk)).content.decode()
    assert root.post(at("syncrun", "approve", run.pk), {"reason": "x", "held_count": "2"}).status_code == 302
    assert Command.objects.get().args == {"run": run.pk}


@pytest.mark.parametrize("data", [{"reason": "x"}, {"held_count": "2"}, {"reason": " ", "held_count": "2"}, {}])
def test_approval_without_a_count_or_reason_shows_the_form_again(root: Client, data: dict[str, str]) -> None:
    answer = root.post(at("syncrun", "approve", held_run("s1", "s2").pk), data)
    assert answer.status_code == 400
    assert "Required:" in answer.content.decode()
    assert not AuditRow.objects.exists() and not Command.objects.exists()


def test_approval_with_a_changed_count_is_refused(root: Client) -> None:
    run = held_run("s1", "s2")
    answer = root.post(at("syncrun", "approve", run.pk), {"reason": "x", "held_count": "3"}, follow=True)
    assert "has 2 removals on hold, not 3" in answer.content.decode()
    assert not Command.objects.exists()


def test_dismissed_run_offers_to_delete_its_skills_while_some_are_kept(root: Client) -> None:
    run = held_run("s1", "s2")
    type(run).objects.update(state="dismissed")
    assert "Delete 2 skills" not in root.get(at("syncrun", "change", run.pk)).content.decode()
    DismissedRemoval.objects.create(skill_id="s1", run_id=run.pk, dismissed_at=run.started_at, dismissed_by="user:root")
    page = root.get(at("syncrun", "change", run.pk)).content.decode()
    assert "Delete 2 skills" in page and "Keep 2 skills" not in page


def test_key_of_another_agent_is_not_found(root: Client) -> None:
    agent("one", keys=1)
    other = agent("two", keys=0)
    assert root.post(at("agent", "revoke", other.pk, AgentKey.objects.get().pk)).status_code == 404
    assert AgentKey.objects.get().revoked_at is None


@pytest.mark.parametrize("name", ["replay", "discard"])
def test_selected_dead_letters_are_replayed_by_one_command_or_discarded_each(root: Client, name: str) -> None:
    ids = [dead_letter(number).pk for number in range(4)]
    home = at("deadletter", "changelist")
    asked = root.post(home, {"action": name, "_selected_action": ids[:3]})
    assert asked.status_code == 200 and b'name="reason"' in asked.content
    assert not AuditRow.objects.exists()

    hidden = dict.fromkeys(["action", "confirmed"])
    given: dict[str, Any] = {"reason": "known cause", "_selected_action": []}
    for field, value in asked.context["button"].hidden:
        if field in hidden:
            given[field] = value
        else:
            given[field].append(value)
    answer = root.post(home, given, follow=True)
    assert AuditRow.objects.filter(reason="known cause", outcome="performed").count() == (3 if name == "discard" else 1)
    assert DeadLetter.objects.filter(state="discarded").count() == (3 if name == "discard" else 0)
    if name == "discard":
        assert b"3 dead letters" in answer.content and not Command.objects.exists()
    else:
        command = Command.objects.get()
        assert command.args == {"dead_letters": ids[:3]}
        assert answer.redirect_chain[-1][0] == at("command", "change", command.pk)


def test_all_rows_of_a_filter_can_be_discarded(root: Client) -> None:
    for number in range(30):
        dead_letter(number)
    home = at("deadletter", "changelist")
    first = DeadLetter.objects.order_by("pk")[0].pk
    asked = root.post(f"{home}?code=not_json", {"action": "discard", "select_across": "1", "_selected_action": [first]})
    ids = [value for field, value in asked.context["button"].hidden if field == "_selected_action"]
    assert len(ids) == 30
    root.post(home, {"action": "discard", "confirmed": "1", "_selected_action": ids, "reason": "x"})
    assert DeadLetter.objects.filter(state="discarded").count() == 30


def test_denied_bulk_action_has_one_audit_row(client: Client) -> None:
    ids = [dead_letter(number).pk for number in range(3)]
    client.force_login(person("viewer"))
    answer = client.post(at("deadletter", "changelist"), {"action": "discard", "_selected_action": ids})
    assert answer.status_code == 403
    assert AuditRow.objects.get().outcome == "refused"
    assert DeadLetter.objects.filter(state="open").count() == 3


def test_missing_dead_letter_does_not_stop_the_others(root: Client) -> None:
    ids = [dead_letter(1).pk, 999_999, dead_letter(2).pk]
    data = {"action": "discard", "confirmed": "1", "_selected_action": ids, "reason": "x"}
    answer = root.post(at("deadletter", "changelist"), data, follow=True)
    assert b"2 dead letters discarded" in answer.content and b"1 dead letter not discarded" in answer.content


def test_bulk_action_with_a_too_long_reason_is_refused(root: Client) -> None:
    ids = [dead_letter(1).pk]
    data = {"action": "discard", "confirmed": "1", "_selected_action": ids, "reason": "x" * 1001}
    assert b"At most 1000 characters" in root.post(at("deadletter", "changelist"), data, follow=True).content
    assert not AuditRow.objects.exists()
