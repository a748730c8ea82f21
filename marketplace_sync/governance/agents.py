"""Actions on agents: register, set the maturity, disable, enable. Superusers only."""

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

# A name goes into URLs and log lines unescaped. The first character is no dot: URLs drop the parts "." and "..".
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def parse_maturity(text: str) -> Maturity:
    """Return the maturity of that name. Raises `InvalidInputError`."""
    try:
        return Maturity(text)
    except ValueError:
        raise InvalidInputError("maturity", f"One of {', '.join(Maturity)}.") from None


def may_send_commands(maturity: Maturity) -> bool:
    """Return whether an actor of this maturity may have the daemon execute commands."""
    return allows(maturity, Complexity.CRITICAL)


def expire_commands_of(ident: str, reason: str) -> dict[str, list[int]]:
    """Expire the pending commands of an actor who has lost the right to them; return details for the audit."""
    ended = expire_pending_commands(ident, reason)
    return {"expired_commands": ended} if ended else {}


class AgentAction(Action[R]):
    """An action on an agent, by its name."""

    superuser_only = True

    def __init__(self, agent_name: str, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.agent_name = agent_name

    @property
    def target(self) -> str:
        return f"agent {self.agent_name}"

    def agent(self) -> Agent:
        """Return the agent, locked. Raises `NoSuchTargetError`."""
        agents = Agent.objects.select_for_update(of=("self", "user"), no_key=True).select_related("user")
        agent = agents.filter(name=self.agent_name).first() if _NAME.fullmatch(self.agent_name) else None
        if agent is None:
            raise NoSuchTargetError(f"There is no agent {self.agent_name}.")
        return agent


class RegisterAgent(AgentAction[Agent]):
    """Register an agent. It has no key yet. Its user cannot log in: it has no password."""

    verb, label = "register_agent", "Register agent"

    def __init__(
        self, name: str, maturity: Maturity | str, *, actor: Actor, reason: str = "", origin: str = ""
    ) -> None:
        super().__init__(name, actor=actor, reason=reason, origin=origin)
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                "name", "1 to 64 characters of a-z, 0-9, '.', '_' and '-'; the first is one of a-z, 0-9."
            )
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
        except (IntegrityError, DataError, ValidationError) as error:
            if Agent.objects.filter(name=self.agent_name).exists():
                raise NotPossibleError(f"An agent {self.agent_name} is registered already.") from None
            problem = " ".join(str(error).split())
            raise NotPossibleError(f"The user of agent {self.agent_name} cannot be stored: {problem}") from None


class SetMaturity(AgentAction[Agent]):
    """Change how far an agent is trusted. All its later actions are checked against the new maturity."""

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
    """Refuse all keys of an agent until it is enabled again, and expire its pending commands."""

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
    """Accept the keys of a disabled agent again."""

    verb, label = "enable_agent", "Enable agent"

    def execute(self) -> Agent:
        agent = self.agent()
        if agent.enabled:
            raise NotPossibleError(f"Agent {agent.name} is enabled already.")
        agent.enabled = True
        agent.save(update_fields=["enabled"])
        return agent
