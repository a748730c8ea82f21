"""Who may follow the feed, and what they asked for: decided before anything is sent."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest, parse_cookie
from django.utils import timezone

from marketplace_sync import client_address
from marketplace_sync.governance.actors import Actor, actor_of, demand
from marketplace_sync.governance.errors import MaturityRequiredError
from marketplace_sync.governance.keys import failed_keys, find_key
from marketplace_sync.governance.policy import Complexity
from marketplace_sync.governance.sessions import ReadSession
from marketplace_sync.live.entries import Wanted
from marketplace_sync.live.origins import may_follow, site_origin
from marketplace_sync.models import AgentKey, FeedChange

# Close codes: the HTTP status that says the same, plus 4000. 1011 is the protocol's own for a fault of the server.
BAD_REQUEST, UNKNOWN, FORBIDDEN, GONE, TOO_SLOW, SERVER_FAULT = 4400, 4401, 4403, 4410, 4429, 1011
TOO_MANY = TOO_SLOW

_PARAMETERS = ("after", "kind", "category", "skill_id")
_NUMBER = re.compile(r"[0-9]{1,18}")
# Beyond it nobody filters by hand, and every change is held against each.
_MAX_PARAMETERS = 1000
_NOT_IN_URL = frozenset(("key", "token", "access_token", "api_key", "apikey", "auth", "authorization", "bearer"))


class SubscriptionRefusedError(Exception):
    """Not to be let in. `code` is the close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a client asks for and shows. `after` `None`: from now on. `site`: our own origin. Texts are "" for none."""

    after: int | None
    wanted: Wanted
    origin: str
    site: str
    authorization: str
    session: str
    address: str


@dataclass(frozen=True, slots=True)
class Credential:
    """By what somebody was let in: an agent's key by its number, or a person's session."""

    key_id: int | None = None
    session: str = ""


def read_request(scope: Mapping[str, Any]) -> Handshake:
    """What an ASGI WebSocket scope asks for. Raises `SubscriptionRefusedError`."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in headers:
            # Two of one kind: the check would look at one and something behind it at the other.
            if name in (b"origin", b"authorization"):
                raise SubscriptionRefusedError(BAD_REQUEST, f"More than one {name.decode()} header.")
            headers[name] += f"; {value.decode('latin-1')}"
        else:
            headers[name] = value.decode("latin-1")
    after, wanted = parse_query(scope.get("query_string", b""))
    return Handshake(
        after=after,
        wanted=wanted,
        origin=headers.get(b"origin", ""),
        site=site_origin(scope),
        authorization=headers.get(b"authorization", ""),
        session=_session_of(headers.get(b"cookie", "")),
        address=client_address.of_scope(scope),
    )


def _session_of(cookies: str) -> str:
    """Return the session's key; "" for one with NUL, which a quoted value can hold and no database has."""
    key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME, "")
    return "" if "\0" in key else key


def parse_query(query: bytes) -> tuple[int | None, Wanted]:
    """`after` and the filters. Raises `SubscriptionRefusedError` for a parameter that is unknown or can't be."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise SubscriptionRefusedError(
            BAD_REQUEST, f"Not a query in UTF-8 of {_MAX_PARAMETERS} parameters at most."
        ) from None
    given: dict[str, list[str]] = {name: [] for name in _PARAMETERS}
    for name, value in pairs:
        if name.lower() in _NOT_IN_URL:
            raise SubscriptionRefusedError(
                BAD_REQUEST, "A key in the URL gets into logs: revoke it, send Authorization: Bearer <key>."
            )
        if name not in given:
            raise SubscriptionRefusedError(
                BAD_REQUEST, f"{name[:40]!r} is no parameter; there are {', '.join(_PARAMETERS)}."
            )
        if not value:
            raise SubscriptionRefusedError(BAD_REQUEST, f"{name} is empty.")
        if "\0" in value:  # PostgreSQL takes no such text, and would look as if it did not answer
            raise SubscriptionRefusedError(BAD_REQUEST, f"{name} has the character NUL.")
        given[name].append(value)
    if len(given["after"]) > 1 or not all(map(_NUMBER.fullmatch, given["after"])):
        raise SubscriptionRefusedError(BAD_REQUEST, "after is one whole number from 0 on.")
    unknown = set(given["kind"]) - set(FeedChange.Kind.values)
    if unknown:
        raise SubscriptionRefusedError(BAD_REQUEST, f"{min(unknown)[:40]!r} is no kind.")
    wanted = Wanted(frozenset(given["kind"]), frozenset(given["category"]), frozenset(given["skill_id"]))
    return (int(given["after"][0]) if given["after"] else None), wanted


def let_in(request: Handshake) -> tuple[Credential, Actor]:
    """Who asks, and by what. Uses the database. Raises `SubscriptionRefusedError`.

    An agent shows its key in the header. A person's browser sends the session's cookie to whatever page asks it to,
    so the page has to be one of ours; a client that is no browser, and says no origin, needs a key.
    """
    if request.origin and not may_follow(request.origin, request.site):
        raise SubscriptionRefusedError(
            FORBIDDEN, "This origin is not this site's scheme, host and port, nor in CSRF_TRUSTED_ORIGINS."
        )
    if request.authorization:
        scheme, _, raw = request.authorization.partition(" ")
        key = find_key(raw.strip(), origin=f"websocket {request.address}") if scheme.lower() == "bearer" else None
        if key is None:
            if failed_keys.admit(client_address.neighbourhood(request.address)) is not None:
                raise SubscriptionRefusedError(TOO_MANY, "Too many failed keys from this address.")
            raise SubscriptionRefusedError(
                UNKNOWN, "This key is not valid: unknown, expired, revoked, or of a disabled agent."
            )
        user, found = key.user, Credential(key_id=key.pk)
    elif request.origin and request.session:
        user, found = _user_of(request.session), Credential(session=request.session)
    else:
        raise SubscriptionRefusedError(UNKNOWN, "Log in, or send a key: Authorization: Bearer <key>.")
    actor = actor_of(user)
    if actor is None:
        raise SubscriptionRefusedError(UNKNOWN, "Log in, or send a key: Authorization: Bearer <key>.")
    try:
        demand(actor, Complexity.LOW)
    except MaturityRequiredError as lacking:
        raise SubscriptionRefusedError(FORBIDDEN, lacking.detail) from None
    return found, actor


def no_longer_valid(passes: Collection[Credential]) -> set[Credential]:
    """Those whose key was revoked or has expired, whose session has ended, or whose owner may no longer come in."""
    ids = {shown.key_id for shown in passes if shown.key_id is not None}
    now = timezone.now()
    keys: Iterable[AgentKey] = AgentKey.objects.filter(pk__in=ids).select_related("user__mirror_agent")
    valid = {Credential(key_id=key.pk) for key in keys if key.state(now) == "active" and _may_read(key.user)}
    sessions = {shown for shown in passes if shown.key_id is None}
    valid |= {shown for shown in sessions if _may_read(_user_of(shown.session))}
    return set(passes) - valid


def _may_read(user: Any) -> bool:
    actor = actor_of(user)
    if actor is None:
        return False
    try:
        demand(actor, Complexity.LOW)
    except MaturityRequiredError:
        return False
    return True


def _user_of(session: str) -> Any:
    """Whose session it is; nobody's is an anonymous user's."""
    request = HttpRequest()
    stored = import_module(settings.SESSION_ENGINE).SessionStore(session).load()
    request.session = ReadSession(stored)  # type: ignore[assignment]
    return get_user(request)
