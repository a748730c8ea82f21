"""Deployments of the marketplace differ in their paths and in what carries the token."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

# The prefix of the paths in docs/protocol.md; the routes are written with it.
DOCUMENTED_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One deployment. `base` is the path of the base URL, below which `prefix` and /health lie.

    `api_auth` is "bearer" or the name of a header for the bare token; `ws_auth` may also be "query:NAME".
    """

    base: str = ""
    prefix: str = DOCUMENTED_PREFIX
    api_auth: str = "bearer"
    ws_auth: str = "query:token"
    ws_path: str = "/ws"

    @property
    def health(self) -> str:
        return f"{self.base}/health"

    def documented(self, path: str) -> str:
        """Return the documented path for a path of this deployment; "" where there is none."""
        if path == self.health:
            return "/health"
        root = self.base + self.prefix
        return DOCUMENTED_PREFIX + path.removeprefix(root) if path.startswith(f"{root}/") else ""

    def api_token(self, headers: Mapping[str, str]) -> str:
        """Return the token of an HTTP request; "" without one. Header names are lower-case."""
        return _in_headers(headers, self.api_auth)

    def ws_token(self, target: str, headers: Mapping[str, str]) -> str:
        """Return the token of a handshake; "" without one."""
        place, _, name = self.ws_auth.partition(":")
        if place == "query":
            return parse_qs(urlsplit(target).query).get(name, [""])[-1]
        return _in_headers(headers, self.ws_auth)


def _in_headers(headers: Mapping[str, str], auth: str) -> str:
    if auth != "bearer":
        return headers.get(auth.lower(), "")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
