"""Agents: registered, trusted more or less, disabled and enabled; by superusers alone."""

import re

from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction

from marketplace_sync.governance.action import Action, R
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.agent_users import new_user
from marketplace_sync.governance.errors import InvalidInputError, NoSuchTargetError, NotPossibleError
from marketplace_sync.governance.policy import Complexity, Maturity, allows
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import expire_pending_commands
from marketplace_sync.models import Agent

# What fits into a URL and a log line as it is; no name of dots alone, which a URL would lose.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def parse_maturity(text: str) -> Maturity:
    """The level of that name. Raises `InvalidInputError`."""
    try:
        return Maturity(text)
    except ValueError:
        raise InvalidInputError("maturity", f"One of {', '.join(Maturity)}.") from None


def may_send_commands(maturity: Maturity) -> bool:
    """Return whether an actor of this maturity may ask the daemon for anything."""
    return allows(maturity, Complexity.CRITICAL)


def expire_commands_of(ident: str, reason: str) -> dict[str, list[int]]:
    """End the pending commands of an actor who has lost the right to them; what the audit notes of it."""
    ended = expire_pending_commands(ident, reason)
    return {"expired_commands": ended} if ended else {}


class AgentAction(Action[R]):
    """Something done to an agent by name."""

    superuser_only = True

    def __init__(self, agent_name: str, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.agent_name = agent_name

    @property
    def target(self) -> str:
        return f"agent {self.agent_name}"

    def agent(self) -> Agent:
        """The agent, locked. Raises `NoSuchTargetError`."""
        agents = Agent.objects.select_for_update(of=("self", "user"), no_key=True).select_related("user")
        agent = agents.filter(name=self.agent_name).first() if _NAME.fullmatch(self.agent_name) else None
        if agent is None:
            raise NoSuchTargetError(f"There is no agent {self.agent_name}.")
        return agent


class RegisterAgent(AgentAction[Agent]):
    """Make an agent known. It has no key yet. Its user can't log in: it has no password."""

    verb, label = "register_agent", "Register agent"

    def __init__(
        self, name: str, maturity: Maturity | str, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(name, actor=actor, reason=reason, origin=origin)
        if not _NAME.fullmatch(name):
            raise InvalidInputError("name", "1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or a digit first.")
        self.maturity = parse_maturity(maturity)

    def execute(self) -> Agent:
        self.details = {"maturity": self.maturity}
        try:
            with transaction.atomic():
                user = new_user(self.agent_name)
                user.save()
                return Agent.objects.create(
                    user=user,
                    name=self.agent_name,
                    maturity=self.maturity,
                    created_at=database_now(),
                    created_by=self.actor.ident,
                )
        except (IntegrityError, DataError, ValidationError) as fault:
            if Agent.objects.filter(name=self.agent_name).exists():
                raise NotPossibleError(f"An agent {self.agent_name} is registered already.") from None
            problem = " ".join(str(fault).split())
            raise NotPossibleError(f"The user of agent {self.agent_name} can't be stored: {problem}") from None


class SetMaturity(AgentAction[Agent]):
    """Trust an agent more or less; what it does from now on is held against the new level."""

    verb, label = "set_maturity", "Set maturity"

    def __init__(
        self, agent_name: str, maturity: Maturity | str, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(agent_name, actor=actor, reason=reason, origin=origin)
        self.maturity = parse_maturity(maturity)

    def execute(self) -> Agent:
        agent = self.agent()
        self.details = {"from": agent.maturity, "to": self.maturity}
        if agent.maturity == self.maturity:
            raise NotPossibleError(f"Agent {agent.name} is {agent.maturity} already.")
        agent.maturity = self.maturity
        agent.save(update_fields=["maturity"])
        if not may_send_commands(self.maturity):
            self.details |= expire_commands_of(f"agent:{agent.name}", f"Agent {agent.name} is {agent.maturity} now.")
        return agent


class DisableAgent(AgentAction[Agent]):
    """Turn an agent away, whatever keys it has, until it is enabled again."""

    verb, label = "disable_agent", "Disable agent"

    def execute(self) -> Agent:
        agent = self.agent()
        if not agent.enabled:
            raise NotPossibleError(f"Agent {agent.name} is disabled already.")
        agent.enabled = False
        agent.save(update_fields=["enabled"])
        self.details = expire_commands_of(f"agent:{agent.name}", f"Agent {agent.name} was disabled.")
        return agent


class EnableAgent(AgentAction[Agent]):
    """Let an agent in again, with the keys that it had."""

    verb, label = "enable_agent", "Enable agent"

    def execute(self) -> Agent:
        agent = self.agent()
        if agent.enabled:
            raise NotPossibleError(f"Agent {agent.name} is enabled already.")
        agent.enabled = True
        agent.save(update_fields=["enabled"])
        return agent
