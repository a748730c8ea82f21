"""Authentication: agents by their key, people by their session."""

from typing import Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from marketplace_sync import client_address
from marketplace_sync.governance.keys import failed_keys, find_key
from marketplace_sync.governance.sessions import only_read


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <key>`. Raises `AuthenticationFailed`, or `Throttled` after too many invalid keys."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        header = get_authorization_header(request).decode("latin-1")
        scheme, _, raw = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = find_key(raw.strip(), origin=origin_of(request))
        if key is None:
            wait = failed_keys.admit(client_address.neighbourhood(client_address.of_request(request)))
            if wait is not None:
                raise Throttled(wait, "Too many invalid keys from this address.")
            raise AuthenticationFailed("This key is not valid: unknown, expired, revoked, or of a disabled agent.")
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class PersonAuthentication(SessionAuthentication):
    """A person's session, which is read but never written."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        with only_read(request._request):
            return super().authenticate(request)


def origin_of(request: Request) -> str:
    """Return the origin of a request, as the audit log stores it."""
    return f"api {client_address.of_request(request)}".strip()
