"""Authenticate clients of the feed at the handshake, and check regularly that their credentials are still valid.

An agent sends its key in the `Authorization` header. A person's browser sends the session's cookie for any page that
connects, so the page has to be one of ours. A client without an `Origin` header is no browser and needs a key.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django.utils import timezone

from marketplace_sync import client_address
from marketplace_sync.governance.actors import Actor, actor_of, require
from marketplace_sync.governance.errors import MaturityRequiredError
from marketplace_sync.governance.keys import failed_keys, find_key
from marketplace_sync.governance.policy import Complexity
from marketplace_sync.governance.sessions import ReadSession
from marketplace_sync.live.handshake import FORBIDDEN, TOO_MANY, UNKNOWN, Handshake, SubscriptionRefusedError
from marketplace_sync.live.origins import may_read_feed
from marketplace_sync.models import AgentKey

_NO_CREDENTIAL = "Log in, or send a key: Authorization: Bearer <key>."


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential of a client: an agent's key, by its primary key, or a person's session, by its session key."""

    key_id: int | None = None
    session: str = ""


def authenticate(handshake: Handshake) -> tuple[Credential, Actor]:
    """Return the client's credential and its actor. Raise `SubscriptionRefusedError`. Uses the database."""
    if handshake.origin and not may_read_feed(handshake.origin, handshake.site):
        raise SubscriptionRefusedError(
            FORBIDDEN, "This origin is neither this site's scheme, host and port nor in CSRF_TRUSTED_ORIGINS."
        )
    if handshake.authorization:
        key = _key_of(handshake)
        user, credential = key.user, Credential(key_id=key.pk)
    elif handshake.origin and handshake.session:
        user, credential = _user_of(handshake.session), Credential(session=handshake.session)
    else:
        raise SubscriptionRefusedError(UNKNOWN, _NO_CREDENTIAL)
    actor = actor_of(user)
    if actor is None:
        raise SubscriptionRefusedError(UNKNOWN, _NO_CREDENTIAL)
    try:
        require(actor, Complexity.LOW)
    except MaturityRequiredError as error:
        raise SubscriptionRefusedError(FORBIDDEN, error.detail) from None
    return credential, actor


def _key_of(handshake: Handshake) -> AgentKey:
    """Return the valid key in the `Authorization` header. Raise `SubscriptionRefusedError` if there is none."""
    scheme, _, raw = handshake.authorization.partition(" ")
    key = find_key(raw.strip(), origin=f"websocket {handshake.address}") if scheme.lower() == "bearer" else None
    if key is not None:
        return key
    if failed_keys.admit(client_address.neighbourhood(handshake.address)) is not None:
        raise SubscriptionRefusedError(TOO_MANY, "Too many invalid keys from this address.")
    raise SubscriptionRefusedError(UNKNOWN, "This key is not valid: unknown, expired, revoked, or of a disabled agent.")


def no_longer_valid(credentials: Collection[Credential]) -> set[Credential]:
    """Return those whose key or session has ended, or whose owner may no longer read. Uses the database."""
    ids = {credential.key_id for credential in credentials if credential.key_id is not None}
    now = timezone.now()
    keys: Iterable[AgentKey] = AgentKey.objects.filter(pk__in=ids).select_related("user__mirror_agent")
    valid = {Credential(key_id=key.pk) for key in keys if key.state(now) == "active" and _may_read(key.user)}
    sessions = {credential for credential in credentials if credential.key_id is None}
    valid |= {credential for credential in sessions if _may_read(_user_of(credential.session))}
    return set(credentials) - valid


def _may_read(user: Any) -> bool:
    actor = actor_of(user)
    if actor is None:
        return False
    try:
        require(actor, Complexity.LOW)
    except MaturityRequiredError:
        return False
    return True


def _user_of(session: str) -> Any:
    """Return the session's user; an anonymous user for a session of nobody."""
    request = HttpRequest()
    stored = import_module(settings.SESSION_ENGINE).SessionStore(session).load()
    request.session = ReadSession(stored)  # type: ignore[assignment]
    return get_user(request)
