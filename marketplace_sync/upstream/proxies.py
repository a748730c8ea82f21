"""Which proxy leads to an address: one rule for HTTP and stream, whose libraries have one each. Pure.

 1. This machine itself is reached without a proxy: the proxy's own 127.0.0.1 would be another one.
 2. So is what NO_PROXY names. Its entries have commas or spaces between: `*` is every host; a name is that host
    and all below it, with or without `.` or `*.` before it; an address is itself, a network (10.0.0.0/8) all that is
    in it. An entry with a port holds for that port alone. What can't be read is no entry.
 3. https and wss take HTTPS_PROXY, http and ws HTTP_PROXY; where that is unset, both take ALL_PROXY.

Names are not resolved: an address in NO_PROXY says nothing about a name that leads to it.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from marketplace_sync.conf import BY_NAME, SyncConfig
from marketplace_sync.logs import Secret
from marketplace_sync.setting import SettingProblem
from marketplace_sync.setting_values import is_loopback

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_WITH_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the setting that names it. As a text it is for people, and has no login."""

    setting: str
    url: Secret

    def __str__(self) -> str:
        return f"the proxy {urlsplit(self.url.reveal()).netloc.rpartition('@')[2]}"

    @property
    def secure(self) -> bool:
        """Whether the proxy itself is spoken to over TLS."""
        return self.url.reveal().lower().startswith("https:")

    @property
    def secrets(self) -> Iterator[str]:
        """What no log may show: the password, and the login as it is sent. A user without a password is one too."""
        user, _, password = urlsplit(self.url.reveal()).netloc.rpartition("@")[0].partition(":")
        if user:
            yield password or user
            yield unquote(password or user)
            yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def proxy_for(config: SyncConfig, address: str) -> Proxy | None:
    """The proxy that leads to this URL; `None`: it is reached without one."""
    if not (config.https_proxy or config.http_proxy or config.all_proxy):
        return None
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    own = "HTTPS_PROXY" if parts.scheme in ("https", "wss") else "HTTP_PROXY"
    for name in (own, "ALL_PROXY"):
        url: Secret = getattr(config, BY_NAME[name].field)
        if url:
            return None if is_loopback(host) or named(config.no_proxy, host, port) else Proxy(name, _whole(url))
    return None


def named(no_proxy: str, host: str, port: int) -> bool:
    """Whether a NO_PROXY has this host in it."""
    return any(_matches(entry, host.lower().rstrip("."), port) for entry in re.split(r"[,\s]+", no_proxy.lower()))


def proxy_problems(config: SyncConfig) -> Iterator[SettingProblem]:
    """Of a proxy that would have to be used and can't be."""
    for name in {found.setting for url in (config.api_url, config.ws_url) if (found := proxy_for(config, url))}:
        url: Secret = getattr(config, BY_NAME[name].field)
        if url.reveal().lower().startswith("socks"):
            yield BY_NAME[name].problem(
                "error",
                "names a SOCKS proxy, which is not supported.",
                f"Name an HTTP proxy, {name}=http://proxy.example:3128, or the marketplace's host in NO_PROXY.",
            )


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if with_port := _WITH_PORT.fullmatch(entry):
        return int(with_port[2]) == port and _matches(with_port[1], host, port)
    entry = entry.strip("[]")
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _whole(url: Secret) -> Secret:
    """With the `:` of an empty password, without which a user name alone would be refused."""
    scheme, _, rest = url.reveal().partition("://")
    login, at, host = rest.rpartition("@")
    return Secret(f"{scheme}://{login}{'' if ':' in login or not at else ':'}{at}{host}")
