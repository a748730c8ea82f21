"""Keys of agents: superusers issue, rotate and revoke them; clients authenticate with them."""

from datetime import timedelta
from hmac import compare_digest
from typing import Any, NamedTuple

from django.utils import timezone
from knox.crypto import hash_token

from marketplace_sync.governance.action import Action, R
from marketplace_sync.governance.actors import Actor, actor_of
from marketplace_sync.governance.agents import AgentAction, expire_commands_of
from marketplace_sync.governance.errors import InvalidInputError, NoSuchTargetError, NotPossibleError
from marketplace_sync.governance.key_notes import KeyRefusal, notes
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.models import Agent, AgentKey

# Our keys have 71 characters; a text longer than this is not hashed.
_MAX_KEY_CHARS = 128
_LONGEST_LIFE = timedelta(days=36_500)
# Failed keys per minute and address, of the API and the feed together; beyond them the answer is 429. A valid key is
# looked up first, so the bad keys of others behind the same address never block it.
failed_keys = SlidingWindow(60, 60.0)


class IssuedKey(NamedTuple):
    """A new key. `raw` is the secret that the agent sends; it is stored nowhere, so it can be shown only now."""

    key: AgentKey
    raw: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.key.token_key}…)"


class IssueKey(AgentAction[IssuedKey]):
    """Give an agent one more key. `expires_in` `None`: it does not expire."""

    verb, label = "issue_key", "Issue key"

    def __init__(
        self,
        agent_name: str,
        expires_in: timedelta | None = None,
        *,
        actor: Actor,
        reason: str = "",
        origin: str = "",
    ) -> None:
        super().__init__(agent_name, actor=actor, reason=reason, origin=origin)
        if expires_in is not None and not timedelta(0) < expires_in <= _LONGEST_LIFE:
            raise InvalidInputError("expires_in", f"More than 0, and at most {_LONGEST_LIFE.days} days.")
        self.expires_in = expires_in

    def execute(self) -> IssuedKey:
        agent = self.agent()
        if not agent.enabled:
            raise NotPossibleError(f"Agent {agent.name} is disabled; enable it first.")
        issued = _issue(agent, self.expires_in, self.actor)
        self.details = {"key": issued.key.pk, "expires": issued.key.expiry}
        return issued


class KeyAction(Action[R]):
    """An action on a key, by its number."""

    superuser_only = True

    def __init__(self, key_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.key_id = key_id

    @property
    def target(self) -> str:
        return f"key {self.key_id}"

    def revoke(self) -> AgentKey:
        """Revoke the key. Raises `NoSuchTargetError`, and `NotPossibleError` if it is revoked already."""
        keys = AgentKey.objects.select_for_update(of=("self",)).select_related("user__mirror_agent")
        key: AgentKey | None = keys.filter(pk=self.key_id).first()
        if key is None:
            raise NoSuchTargetError(f"There is no key {self.key_id}.")
        self.details = {"agent": key.agent.name}
        if key.revoked_at is not None:
            raise NotPossibleError(f"Key {key.pk} is revoked already.")
        key.revoked_at, key.revoked_by = timezone.now(), self.actor.ident
        key.save(update_fields=["revoked_at", "revoked_by"])
        # A command does not record the key that it was sent with, so all of the agent's expire.
        self.details |= expire_commands_of(f"agent:{key.agent.name}", f"A key of agent {key.agent.name} was revoked.")
        return key


class RevokeKey(KeyAction[AgentKey]):
    """Revoke a key: it is refused from now on."""

    verb, label = "revoke_key", "Revoke key"

    def execute(self) -> AgentKey:
        return self.revoke()


class RotateKey(KeyAction[IssuedKey]):
    """Revoke a key and issue a new one with the same life span."""

    verb, label = "rotate_key", "Rotate key"

    def execute(self) -> IssuedKey:
        old = self.revoke()
        life = None if old.expiry is None else old.expiry - old.created
        issued = _issue(old.agent, life, self.actor)
        self.details |= {"new_key": issued.key.pk, "expires": issued.key.expiry}
        return issued


def _issue(agent: Agent, expires_in: timedelta | None, actor: Actor) -> IssuedKey:
    keys: Any = AgentKey.objects  # knox's manager, which is untyped, makes and hashes the key
    return IssuedKey(*keys.create(user=agent.user, expiry=expires_in, created_by=actor.ident))


def find_key(raw: str, *, origin: str = "") -> AgentKey | None:
    """Return the key with this secret, its `user` and agent loaded; `None` when it is not valid, for whatever reason.

    The caller cannot distinguish an unknown key from one that is expired, revoked or of a disabled agent. The audit has
    a row for the latter three.
    """
    if len(raw) > _MAX_KEY_CHARS or not raw.isascii():
        return None
    digest = hash_token(raw)
    key: AgentKey | None = AgentKey.objects.select_related("user__mirror_agent").filter(digest=digest).first()
    if key is None or not compare_digest(digest, key.digest) or not hasattr(key.user, "mirror_agent"):
        return None
    now = timezone.now()
    state = key.state(now)
    if state == "active" and actor_of(key.user) is None:
        state = "of a disabled agent"
    if state == "active":
        notes.used(key, now)
        return key
    actor = Actor(
        kind="agent",
        ident=f"agent:{key.agent.name}",
        maturity=Maturity(key.agent.maturity),
        is_superuser=False,
        user_pk=key.user_id,
    )
    notes.refused(key, KeyRefusal(actor=actor, why=state, origin=origin, at=now))
    return None
