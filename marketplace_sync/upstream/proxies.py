"""Choose the proxy for a URL: one rule for HTTP and the stream, whose libraries have one each. Pure.

 1. This machine itself is reached without a proxy: the proxy's own 127.0.0.1 would be another machine.
 2. So are the hosts in NO_PROXY. Its entries are separated by commas or spaces: `*` is every host; a name is that host
    and all below it, with or without `.` or `*.` before it; an address is itself, a network (10.0.0.0/8) every address
    in it. An entry with a port counts for that port alone. An unreadable entry is ignored.
 3. https and wss use HTTPS_PROXY, http and ws HTTP_PROXY; if that is unset, both use ALL_PROXY.

Names are not resolved: an address in NO_PROXY does not count for a name that leads to it.
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
    """A proxy, and the setting that names it. Its `str` is for people, and contains no login."""

    setting: str
    url: Secret

    def __str__(self) -> str:
        return f"the proxy {urlsplit(self.url.reveal()).netloc.rpartition('@')[2]}"

    @property
    def secure(self) -> bool:
        """Return whether the connection to the proxy itself uses TLS."""
        return self.url.reveal().lower().startswith("https:")

    @property
    def secrets(self) -> Iterator[str]:
        """Yield what no log may show: the password, and the login as it is sent. A user name alone is secret too."""
        user, _, password = urlsplit(self.url.reveal()).netloc.rpartition("@")[0].partition(":")
        if user:
            yield password or user
            yield unquote(password or user)
            yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()


def proxy_for(config: SyncConfig, address: str) -> Proxy | None:
    """Return the proxy for this URL; `None` if it is reached without one."""
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
    """Return whether this NO_PROXY contains the host."""
    return any(_matches(entry, host.lower().rstrip("."), port) for entry in re.split(r"[,\s]+", no_proxy.lower()))


def proxy_problems(config: SyncConfig) -> Iterator[SettingProblem]:
    """Yield a problem for each proxy that is needed and not supported."""
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
    """Return the URL with the `:` of an empty password, without which the libraries refuse a user name alone."""
    scheme, _, rest = url.reveal().partition("://")
    login, at, host = rest.rpartition("@")
    return Secret(f"{scheme}://{login}{'' if ':' in login or not at else ':'}{at}{host}")
