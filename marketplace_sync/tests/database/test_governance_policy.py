"""The policy, and which rights persons and agents have."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission

from marketplace_sync.governance.actions import ACTIONS, Reconnect, RegisterAgent, may
from marketplace_sync.governance.actors import COMMAND_LINE, Actor, actor_of, reload_actor, require
from marketplace_sync.governance.agents import DisableAgent
from marketplace_sync.governance.errors import MaturityRequiredError
from marketplace_sync.governance.policy import Complexity, Maturity, allows, required_for
from marketplace_sync.models import Agent


def user(name: str = "ada", **flags: Any) -> Any:
    return get_user_model().objects.create_user(name, **flags)


def agent(maturity: Maturity = Maturity.STUDENT, name: str = "scout") -> Agent:
    return RegisterAgent(name, maturity, actor=COMMAND_LINE).perform()


def test_each_complexity_requires_the_maturity_of_its_rank() -> None:
    table = {
        (maturity, complexity)
        for maturity in Maturity
        for complexity in Complexity
        if allows(maturity, complexity)
    }  # fmt: skip
    assert table == {
        ("STUDENT", "LOW"),
        ("INTERN", "LOW"), ("INTERN", "MODERATE"),
        ("SUPERVISED", "LOW"), ("SUPERVISED", "MODERATE"), ("SUPERVISED", "HIGH"),
        ("AUTONOMOUS", "LOW"), ("AUTONOMOUS", "MODERATE"), ("AUTONOMOUS", "HIGH"), ("AUTONOMOUS", "CRITICAL"),
    }  # fmt: skip
    assert [maturity.rank for maturity in Maturity] == [0, 1, 2, 3]
    assert required_for(Complexity.CRITICAL) is Maturity.AUTONOMOUS


def test_the_agent_table_has_the_maturities_of_the_policy() -> None:
    assert Agent.Maturity.values == [str(level) for level in Maturity]


def test_every_management_action_needs_the_highest_maturity_and_has_its_own_verb() -> None:
    assert {action.complexity for action in ACTIONS} == {Complexity.CRITICAL}
    assert len({action.verb for action in ACTIONS}) == len({action.label for action in ACTIONS}) == len(ACTIONS) == 16
    assert all(len(action.verb) <= 40 for action in ACTIONS)


def test_every_actor_may_read() -> None:
    student = Actor(kind="person", ident="user:x", maturity=Maturity.STUDENT, is_superuser=False, user_pk=1)
    require(student, Complexity.LOW)
    with pytest.raises(MaturityRequiredError) as refused:
        require(student, Complexity.CRITICAL)
    assert (refused.value.required, refused.value.actual) == ("AUTONOMOUS", "STUDENT")


@pytest.mark.django_db
class TestActors:
    def test_an_anonymous_or_inactive_user_is_no_actor(self) -> None:
        gone = user(is_active=False, is_superuser=True)
        assert (actor_of(None), actor_of(AnonymousUser()), actor_of(gone)) == (None, None, None)
        assert may(None, Reconnect) is False

    @pytest.mark.parametrize(
        ("flags", "permitted", "maturity"),
        [
            ({}, False, "STUDENT"),
            ({}, True, "STUDENT"),  # the permission counts only for staff
            ({"is_staff": True}, False, "STUDENT"),
            ({"is_staff": True}, True, "AUTONOMOUS"),
            ({"is_superuser": True}, False, "AUTONOMOUS"),
        ],
    )
    def test_a_person_has_the_rights_of_djangos_permissions(
        self, flags: dict[str, bool], permitted: bool, maturity: str
    ) -> None:
        person = user(**flags)
        if permitted:
            person.user_permissions.add(Permission.objects.get(codename="manage_sync"))
        actor = actor_of(person)
        superuser = flags.get("is_superuser", False)
        assert actor == Actor(
            kind="person", ident="user:ada", maturity=Maturity(maturity), is_superuser=superuser, user_pk=person.pk
        )
        assert may(actor, Reconnect) is (maturity == "AUTONOMOUS")
        assert may(actor, RegisterAgent) is superuser

    @pytest.mark.parametrize("maturity", Maturity)
    def test_an_agent_has_the_rights_of_its_maturity_whatever_flags_its_user_has(self, maturity: Maturity) -> None:
        account = agent(maturity).user
        account.is_staff = account.is_superuser = True
        account.save()
        actor = actor_of(account)
        assert actor == Actor(
            kind="agent", ident="agent:scout", maturity=maturity, is_superuser=False, user_pk=account.pk
        )
        assert may(actor, RegisterAgent) is False

    def test_a_disabled_agent_is_no_actor(self) -> None:
        account = agent(Maturity.AUTONOMOUS).user
        before = actor_of(account)
        DisableAgent("scout", actor=COMMAND_LINE).perform()
        assert before is not None and reload_actor(before) is None

    def test_the_user_of_an_agent_has_no_password_and_a_name_that_no_form_accepts(self) -> None:
        account = agent().user
        assert (account.username, account.has_usable_password()) == ("agent:scout", False)
        with pytest.raises(Exception, match="valid username"):
            account.full_clean()

    def test_only_the_command_line_is_an_actor_without_an_account(self) -> None:
        forged = Actor(kind="person", ident="x", maturity=Maturity.AUTONOMOUS, is_superuser=True, user_pk=None)
        assert reload_actor(COMMAND_LINE) == COMMAND_LINE
        assert reload_actor(forged) is None
