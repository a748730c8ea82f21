"""The address of a client, for all limits by address and all origins in the audit log.

`X-Forwarded-For` counts only where the connection comes from a proxy that `TRUSTED_PROXIES` names. Each proxy appends
the address of its own peer, so the list is read from its right end, and the first address that is no trusted proxy is
the client. Anything to the left of it may be invented by the client.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from marketplace_sync.conf import BY_NAME
from marketplace_sync.setting import InvalidValueError, Networks
from marketplace_sync.setting_values import parse

# No real chain of proxies is longer; a client could send thousands.
_MAX_HOPS = 20


def of_request(request: HttpRequest) -> str:
    """Return the address of the client behind a Django request; "" for a Unix socket without a proxy."""
    return client_address(
        str(request.META.get("REMOTE_ADDR") or ""), str(request.META.get("HTTP_X_FORWARDED_FOR") or ""), trusted()
    )


def of_scope(scope: Mapping[str, Any]) -> str:
    """Return the address of the client behind an ASGI scope; "" for a Unix socket without a proxy."""
    lists = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    peer = (scope.get("client") or ("",))[0] or ""
    return client_address(peer, ",".join(lists), trusted())


def client_address(peer: str, forwarded: str, proxies: Networks) -> str:
    """Return the rightmost address of `forwarded` and then `peer` that is not among `proxies`.

    If all of them are proxies, the leftmost is the client. Reading stops at the first entry that is no address: the
    proxy that wrote it is then the nearest that is known.
    """
    nearest = _canonical(peer)
    for entry in [*forwarded.split(",")][: -_MAX_HOPS - 1 : -1]:
        if not proxies.contain(nearest):
            break
        address = _canonical(_without_port(entry.strip()))
        if _parsed(address) is None:
            break
        nearest = address
    return nearest


def neighbourhood(address: str) -> str:
    """Return the key that limits count by: the address, or the /64 network of an IPv6 address.

    A /64 is the smallest network that a provider hands out, so one client owns all of its addresses.
    """
    parsed = _parsed(address)
    if not isinstance(parsed, IPv6Address):
        return address
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


def trusted() -> Networks:
    """Return the networks of `TRUSTED_PROXIES`; none while the setting is invalid, which a system check reports."""
    return _networks(getattr(settings, "TRUSTED_PROXIES", "") or "")


@lru_cache(maxsize=16)
def _networks(raw: object) -> Networks:
    try:
        networks: Networks = parse(BY_NAME["TRUSTED_PROXIES"], raw)
    except InvalidValueError:
        return Networks(())
    return networks


def _without_port(entry: str) -> str:
    """Return the address of `1.2.3.4:80`, `"[::1]:80"`, `[::1]` or a bare address."""
    entry = entry.strip('"')
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.partition(":")
    return host if colon and port.isdigit() else entry


def _canonical(text: str) -> str:
    """Return one spelling per address: IPv4 within IPv6 as IPv4, without a zone. Other text as it is."""
    parsed = _parsed(text)
    return text if parsed is None else str(parsed)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
