"""Agents' keys: issued, rotated, revoked by superusers; and looked up, for whoever shows one at a door."""

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

# Ours have 71 characters; nothing longer than this is worth a hash.
_MAX_KEY_CHARS = 128
_LONGEST_LIFE = timedelta(days=36_500)
# Failed keys from one address a minute, at whichever door (INTERFACE.md, HTTP API); beyond them the answer is 429. A
# good key is looked up first, so it is never refused for the bad ones of its neighbours.
failed_keys = SlidingWindow(60, 60.0)


class IssuedKey(NamedTuple):
    """A new key. `raw` is what the agent shows; it is nowhere kept, so this is the only time to see it."""

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
            raise InvalidInputError("expires_in", f"More than nothing, and at most {_LONGEST_LIFE.days} days.")
        self.expires_in = expires_in

    def execute(self) -> IssuedKey:
        agent = self.agent()
        if not agent.enabled:
            raise NotPossibleError(f"Agent {agent.name} is disabled; enable it first.")
        issued = _issue(agent, self.expires_in, self.actor)
        self.details = {"key": issued.key.pk, "expires": issued.key.expiry}
        return issued


class KeyAction(Action[R]):
    """Something done to a key, by its number."""

    superuser_only = True

    def __init__(self, key_id: int, *, actor: Actor, reason: str = "", origin: str = "") -> None:
        super().__init__(actor=actor, reason=reason, origin=origin)
        self.key_id = key_id

    @property
    def target(self) -> str:
        return f"key {self.key_id}"

    def revoke(self) -> AgentKey:
        """Revoke the key. Raises `NoSuchTargetError`, and `NotPossibleError` for one that is revoked already."""
        keys = AgentKey.objects.select_for_update(of=("self",)).select_related("user__mirror_agent")
        key: AgentKey | None = keys.filter(pk=self.key_id).first()
        if key is None:
            raise NoSuchTargetError(f"There is no key {self.key_id}.")
        self.details = {"agent": key.agent.name}
        if key.revoked_at is not None:
            raise NotPossibleError(f"Key {key.pk} is revoked already.")
        key.revoked_at, key.revoked_by = timezone.now(), self.actor.ident
        key.save(update_fields=["revoked_at", "revoked_by"])
        # With which key a command was asked for is not known.
        self.details |= expire_commands_of(f"agent:{key.agent.name}", f"A key of agent {key.agent.name} was revoked.")
        return key


class RevokeKey(KeyAction[AgentKey]):
    """Make a key worthless from now on."""

    verb, label = "revoke_key", "Revoke key"

    def execute(self) -> AgentKey:
        return self.revoke()


class RotateKey(KeyAction[IssuedKey]):
    """Put a new key, of the same life span, in the place of an old one, which is revoked."""

    verb, label = "rotate_key", "Rotate key"

    def execute(self) -> IssuedKey:
        old = self.revoke()
        life = None if old.expiry is None else old.expiry - old.created
        issued = _issue(old.agent, life, self.actor)
        self.details |= {"new_key": issued.key.pk, "expires": issued.key.expiry}
        return issued


def _issue(agent: Agent, expires_in: timedelta | None, actor: Actor) -> IssuedKey:
    keys: Any = AgentKey.objects  # knox's manager, which is untyped, makes the key and hashes it
    return IssuedKey(*keys.create(user=agent.user, expiry=expires_in, created_by=actor.ident))


def find_key(raw: str, *, origin: str = "") -> AgentKey | None:
    """The key that this is, with its `user` and that one's `agent`; `None` when it is not valid, whyever.

    Unknown, expired, revoked and a disabled agent's are not told apart; the audit has a row for the latter three.
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
