"""Decide which web pages may read the feed, by the rule of Django's CSRF check for the `Origin` of a form.

A page on another port or scheme of the same host may belong to somebody else, and the browser sends it our cookies.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.utils.http import is_same_domain

_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB_SCHEMES = {"ws": "http", "wss": "https"}


def site_origin(scope: Mapping[str, Any]) -> str:
    """Return the origin of the site that this handshake was sent to; "" if its `Host` is not allowed.

    Django's own request computes it, so `ALLOWED_HOSTS`, `SECURE_PROXY_SSL_HEADER` and `USE_X_FORWARDED_HOST` count.
    """
    scheme = scope.get("scheme", "ws")
    request = ASGIRequest(
        {
            "path": "/", "headers": (), **scope,
            "type": "http", "method": "GET", "query_string": b"", "scheme": _WEB_SCHEMES.get(scheme, scheme),
        },
        BytesIO(),
    )  # fmt: skip
    try:
        return f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return ""


def may_read_feed(origin: str, site: str) -> bool:
    """Return whether `origin` is the site's own, or one of `CSRF_TRUSTED_ORIGINS`."""
    page = _parts(origin)
    if page is None:
        return False
    if page == _parts(site):
        return True
    return any(_matches(page, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS)


def _matches(page: tuple[str, str, int], trusted: str) -> bool:
    """Compare with an entry such as `https://example.com` or `https://*.example.com:8443`."""
    scheme, host, port = page
    entry = _parts(trusted.replace("://*.", "://", 1))
    if entry is None or (entry[0], entry[2]) != (scheme, port):
        return False
    return is_same_domain(host, f".{entry[1]}") if "://*." in trusted else host == entry[1]


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an origin; `None` if the text is no origin, such as "null"."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.hostname or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        return None
    return parts.scheme, parts.hostname, default if port is None else port
