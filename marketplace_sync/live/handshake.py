"""Parse the WebSocket handshake of a client: its place in the feed, its filters and its credentials.

A handshake that cannot be served is refused here, before the database is used.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.http import parse_cookie

from marketplace_sync import client_address
from marketplace_sync.live.messages import FeedFilter
from marketplace_sync.live.origins import site_origin
from marketplace_sync.models import FeedChange

# Close codes: the matching HTTP status plus 4000. 1011 is WebSocket's own code for an error of the server.
BAD_REQUEST, UNKNOWN, FORBIDDEN, GONE, TOO_SLOW, SERVER_ERROR = 4400, 4401, 4403, 4410, 4429, 1011
TOO_MANY = TOO_SLOW

_PARAMETERS = ("after", "kind", "category", "skill_id")
_NUMBER = re.compile(r"[0-9]{1,18}")
# Nobody writes more filters by hand, and every change is compared with each of them.
_MAX_PARAMETERS = 1000
_NOT_IN_URL = frozenset(("key", "token", "access_token", "api_key", "apikey", "auth", "authorization", "bearer"))


class SubscriptionRefusedError(Exception):
    """A client may not subscribe, or not any longer. `code` is the close code, `reason` the text that goes with it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """One client's handshake. `after` is `None` for "from now on"; `site` is our own origin. Texts are "" if absent."""

    after: int | None
    filter: FeedFilter
    origin: str
    site: str
    authorization: str
    session: str
    address: str


def read_handshake(scope: Mapping[str, Any]) -> Handshake:
    """Parse an ASGI WebSocket scope. Raise `SubscriptionRefusedError` if it cannot be served."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in headers:
            # With two of one kind, the check could read one and a server behind it the other.
            if name in (b"origin", b"authorization"):
                raise SubscriptionRefusedError(BAD_REQUEST, f"More than one {name.decode()} header.")
            headers[name] += f"; {value.decode('latin-1')}"
        else:
            headers[name] = value.decode("latin-1")
    after, feed_filter = parse_query(scope.get("query_string", b""))
    return Handshake(
        after=after,
        filter=feed_filter,
        origin=headers.get(b"origin", ""),
        site=site_origin(scope),
        authorization=headers.get(b"authorization", ""),
        session=_session_key(headers.get(b"cookie", "")),
        address=client_address.of_scope(scope),
    )


def _session_key(cookies: str) -> str:
    """Return the session's key; "" for one with NUL, which a quoted value may contain and no database stores."""
    key = parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME, "")
    return "" if "\0" in key else key


def parse_query(query: bytes) -> tuple[int | None, FeedFilter]:
    """Return `after` and the filters. Raise `SubscriptionRefusedError` for an unknown parameter or an invalid value."""
    given = _parameters(query)
    if len(given["after"]) > 1 or not all(map(_NUMBER.fullmatch, given["after"])):
        raise SubscriptionRefusedError(BAD_REQUEST, "after must be one whole number, 0 or larger.")
    unknown = set(given["kind"]) - set(FeedChange.Kind.values)
    if unknown:
        raise SubscriptionRefusedError(BAD_REQUEST, f"Unknown kind: {min(unknown)[:40]!r}.")
    feed_filter = FeedFilter(frozenset(given["kind"]), frozenset(given["category"]), frozenset(given["skill_id"]))
    return (int(given["after"][0]) if given["after"] else None), feed_filter


def _parameters(query: bytes) -> dict[str, list[str]]:
    """Return the values of each parameter, in the order given."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise SubscriptionRefusedError(
            BAD_REQUEST, f"The query must be UTF-8 with at most {_MAX_PARAMETERS} parameters."
        ) from None
    given: dict[str, list[str]] = {name: [] for name in _PARAMETERS}
    for name, value in pairs:
        if name.lower() in _NOT_IN_URL:
            raise SubscriptionRefusedError(
                BAD_REQUEST, "URLs are logged: revoke the key in this one, and send Authorization: Bearer <key>."
            )
        if name not in given:
            raise SubscriptionRefusedError(
                BAD_REQUEST, f"Unknown parameter {name[:40]!r}; known are {', '.join(_PARAMETERS)}."
            )
        if not value:
            raise SubscriptionRefusedError(BAD_REQUEST, f"{name} is empty.")
        if "\0" in value:  # PostgreSQL refuses such a text with an error that looks like an outage
            raise SubscriptionRefusedError(BAD_REQUEST, f"{name} contains the character NUL.")
        given[name].append(value)
    return given
