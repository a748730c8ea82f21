"""Actors: agents with their registered maturity, persons with Django's permissions."""

from dataclasses import dataclass
from typing import Any, Literal

from django.contrib.auth import get_user_model

from marketplace_sync.governance.errors import MaturityRequiredError
from marketplace_sync.governance.policy import Complexity, Maturity, allows, required_for
from marketplace_sync.models import Agent

MANAGE_PERMISSION = "marketplace_sync.manage_sync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A person or agent who acts. `ident` is `agent:NAME` or `user:NAME`.

    The rights are those at the time it was made; every action reads them again before it is executed. `user_pk` is
    `None` for the command line alone.
    """

    kind: Literal["agent", "person"]
    ident: str
    maturity: Maturity
    is_superuser: bool
    user_pk: Any  # of the type that the project's user model has


# A person with the shell and the database can change both anyway.
COMMAND_LINE = Actor(kind="person", ident="command line", maturity=Maturity.AUTONOMOUS, is_superuser=True, user_pk=None)


def actor_of(user: Any) -> Actor | None:
    """Return the actor of a Django user; `None` for an anonymous or inactive user and for a disabled agent.

    An agent has the rights of its maturity, whatever flags its user has.
    """
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    agent: Agent | None = getattr(user, "mirror_agent", None)
    if agent is not None:
        if not agent.enabled:
            return None
        return Actor(
            kind="agent",
            ident=f"agent:{agent.name}",
            maturity=Maturity(agent.maturity),
            is_superuser=False,
            user_pk=user.pk,
        )
    # A project's own user model may have none of these fields.
    is_superuser = bool(getattr(user, "is_superuser", False))
    manages = is_superuser or (
        getattr(user, "is_staff", False) and hasattr(user, "has_perm") and user.has_perm(MANAGE_PERMISSION)
    )
    return Actor(
        kind="person",
        ident=f"user:{user.get_username()}",
        maturity=Maturity.AUTONOMOUS if manages else Maturity.STUDENT,
        is_superuser=is_superuser,
        user_pk=user.pk,
    )


def reload_actor(actor: Actor) -> Actor | None:
    """Read the actor again from the database; return `None` when it is no actor any more.

    Locks the actor's account until the end of the transaction: its actions are decided one after the other, and never
    at the same time as a change of its rights.
    """
    if actor.user_pk is None:
        return actor if actor == COMMAND_LINE else None
    # The base manager: a project's own manager may leave some users out.
    users = get_user_model()._base_manager.select_for_update(of=("self",), no_key=True)
    return actor_of(users.select_related("mirror_agent").filter(pk=actor.user_pk).first())


def find_actor(ident: str) -> Actor | None:
    """Read the actor with this `ident` from the database; return `None` when there is none any more."""
    if ident == COMMAND_LINE.ident:
        return COMMAND_LINE
    kind, _, name = ident.partition(":")
    model = get_user_model()
    field = "mirror_agent__name" if kind == "agent" else model.USERNAME_FIELD
    actor = actor_of(model._base_manager.select_related("mirror_agent").filter(**{field: name}).first())
    return actor if actor is not None and actor.ident == ident else None


def require(actor: Actor, complexity: Complexity) -> None:
    """Check the right to read, which leaves no audit row. Raises `MaturityRequiredError`."""
    if not allows(actor.maturity, complexity):
        raise MaturityRequiredError(required_for(complexity), actor.maturity)
