"""Hints on which setting to change when a step of the checkup fails."""

from marketplace_sync.conf import SyncConfig
from marketplace_sync.upstream.errors import (
    MalformedResponseError,
    PeerDeadError,
    RateLimitedError,
    StreamClosedError,
    TokenRefusedError,
    UnreachableError,
    UpstreamError,
    UpstreamServerError,
    UpstreamTimeoutError,
)
from marketplace_sync.upstream.proxies import proxy_for
from marketplace_sync.variants import BEARER, query_parameter

# By a part of the text of `tls.tls_reason`.
_TLS = (
    ("not signed by an authority", "Set ATOM_SAAS_CA_FILE to the certificate (PEM) of the authority that signed it."),
    ("another host name", "Write the host name of the certificate in {url}."),
    ("another address", "Write the host name of the certificate in {url}, not an address."),
    ("has expired", "The marketplace must renew its certificate, unless this machine's clock is wrong."),
    ("not valid yet", "Correct this machine's clock. If it is right, the marketplace must correct its certificate."),
    ("does not speak TLS", "Write {plain}:// in {url}, or the port at which the server speaks TLS."),
    ("no version of TLS", "Set ATOM_SAAS_TLS_MIN_VERSION=1.2, or ask the marketplace to support a newer version."),
    ("client certificate", "Set ATOM_SAAS_CLIENT_CERT_FILE and ATOM_SAAS_CLIENT_KEY_FILE to what it accepts."),
)
_OTHER_TLS = "Check the TLS configuration of the server, or find out which server answers instead of the marketplace."


class CheckError(Exception):
    """A step of the checkup failed for a reason that is no `UpstreamError`."""

    def __init__(self, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.detail, self.hint = detail, hint


class Advice:
    """Hints for an operator, which name the settings and their values. None contains the token."""

    def __init__(self, config: SyncConfig) -> None:
        self._config = config
        self._token = "ATOM_SAAS_API_TOKEN_FILE" if config.api_token_file else "ATOM_SAAS_API_TOKEN"
        proxy = proxy_for(config, config.api_url)
        self._proxy = proxy.setting if proxy is not None else ""

    def name(self, setting: str) -> str:
        """Return the hint for a host name that can't be resolved."""
        return f"Correct the host name in {setting}, or this machine's name servers.{self._or_proxy(setting)}"

    def port(self, setting: str) -> str:
        """Return the hint for a port where nobody answers."""
        return f"Correct host and port in {setting}, or open the firewall.{self._or_proxy(setting)}"

    def not_in_service(self) -> str:
        return "No setting is wrong: the marketplace is down or in maintenance. Try again later."

    def unreadable(self) -> str:
        return (
            "ATOM_SAAS_API_URL and ATOM_SAAS_API_PREFIX lead to a listing whose format this program does not know. "
            "If they are right, ask the marketplace what it changed."
        )

    def no_categories(self, error: UpstreamServerError | MalformedResponseError) -> str:
        """Return the hint for skills that can be read, and categories that can't."""
        if isinstance(error, UpstreamServerError) and error.status >= 500:
            return self.not_in_service()
        return (
            "No setting is wrong, since the skills can be read: "
            f"ask the marketplace about GET {self._config.api_prefix}/categories. "
            "No full sync succeeds without them."
        )

    def on(self, step: str, error: UpstreamError) -> str:
        """Return the hint for the error that the client raised in that step."""
        url = "ATOM_SAAS_WS_URL" if step in ("websocket", "heartbeat") else "ATOM_SAAS_API_URL"
        if "TLS: " in error.reason:
            return self._on_tls(error.reason, url)
        match error:
            case TokenRefusedError():
                return self._on_refusal(step)
            case RateLimitedError():
                return self._on_limit(step)
            case PeerDeadError():
                return (
                    "The server at ATOM_SAAS_WS_URL accepts connections but answers no ping. Check the URL. "
                    "A proxy in between may buffer messages. A slow peer needs a longer ATOM_SAAS_WS_PONG_TIMEOUT."
                )
            case StreamClosedError():
                return "The server at ATOM_SAAS_WS_URL closes the stream immediately. Check the URL."
            case UpstreamTimeoutError() if step in ("tls", "websocket"):
                return f"Correct {url}, look for a firewall, or raise ATOM_SAAS_WS_CONNECT_TIMEOUT."
            case UpstreamTimeoutError():
                return f"Raise ATOM_SAAS_API_TIMEOUT_SECONDS, or check the network to the host in {url}."
            case MalformedResponseError():
                return self._on_malformed(step, error)
            case UpstreamServerError(status=status):
                return self._on_status(step, status)
            case UnreachableError(status=status) if "the proxy" in error.reason:
                return self._on_proxy(status)
            case UnreachableError() if step == "tls":
                return f"Correct host and port in {url}: the server there does not finish a TLS handshake."
            case UnreachableError(status=status):
                return self._on_handshake(status, url)
            case _:
                return f"Check {url}, and the network to its host."

    def _or_proxy(self, setting: str) -> str:
        if setting.endswith("_PROXY"):
            return " Or name the marketplace's host in NO_PROXY."
        return "" if self._proxy else " If this network requires a proxy, set HTTPS_PROXY."

    def _on_tls(self, reason: str, url: str) -> str:
        plain = "ws" if url == "ATOM_SAAS_WS_URL" else "http"
        return next((hint.format(url=url, plain=plain) for part, hint in _TLS if part in reason), _OTHER_TLS)

    def _on_refusal(self, step: str) -> str:
        if step in ("websocket", "heartbeat"):
            way = _carrier(self._config.ws_auth)
            return (
                f"The token was accepted over HTTP, but the stream may expect it in another place than {way}. "
                "Set ATOM_SAAS_WS_AUTH to query:NAME, bearer or the name of a header, as this deployment requires."
            )
        way = _carrier(self._config.api_auth)
        return (
            f"Set {self._token} to a valid token. It is sent {way}; if this deployment expects it in another "
            "header, set ATOM_SAAS_API_AUTH to that header's name."
        )

    def _on_limit(self, step: str) -> str:
        if step == "websocket":
            return "Wait: this token was used for more than 10 connection attempts within a minute, here or elsewhere."
        return "Wait. If it happens again, other programs use this token: lower ATOM_SAAS_API_REQUESTS_PER_MINUTE."

    def _on_malformed(self, step: str, error: MalformedResponseError) -> str:
        if "larger than" in error.reason:
            return "Raise ATOM_SAAS_API_MAX_BODY_BYTES, or lower ATOM_SAAS_PAGE_SIZE."
        if step == "health":
            return "Correct ATOM_SAAS_API_URL: the server there is not the marketplace, but a web page, login or proxy."
        return (
            f"Correct ATOM_SAAS_API_URL or ATOM_SAAS_API_PREFIX (now {self._config.api_prefix or 'empty'}): "
            "the answer is not a listing, but for example a web page."
        )

    def _on_status(self, step: str, status: int) -> str:
        prefix = self._config.api_prefix or "empty"
        if status == 407:
            return self._on_proxy(status)
        if 300 <= status < 400:
            return "Set ATOM_SAAS_API_URL to the target of the redirect: https:// for http://, or another host or path."
        if status in (404, 405, 410) and step == "health":
            return (
                "/health follows ATOM_SAAS_API_URL directly: correct the URL. A path that only /skills has belongs in "
                "ATOM_SAAS_API_PREFIX."
            )
        if status in (404, 405, 410):
            return f"Set ATOM_SAAS_API_PREFIX to the path that comes before /skills (now {prefix})."
        if status in (400, 413, 422):
            return "Lower ATOM_SAAS_PAGE_SIZE; or correct ATOM_SAAS_API_PREFIX."
        if status >= 500:
            return self.not_in_service()
        return "Correct ATOM_SAAS_API_URL or ATOM_SAAS_API_PREFIX."

    def _on_proxy(self, status: int | None) -> str:
        setting = self._proxy or "HTTPS_PROXY"
        if status == 407:
            return f"Write user name and password into the proxy's URL: {setting}=http://user:password@host:port."
        return f"The proxy in {setting} refuses this host. Let the proxy allow it, or name the host in NO_PROXY."

    def _on_handshake(self, status: int | None, url: str) -> str:
        if status is None:
            return f"Correct {url}, or check the network to its host.{self._or_proxy(url)}"
        if status >= 500:
            return self.not_in_service()
        return f"Set ATOM_SAAS_WS_URL to the URL of the stream: the server at the present URL answers HTTP {status}."


def _carrier(auth: str) -> str:
    if auth == BEARER:
        return "as Authorization: Bearer"
    parameter = query_parameter(auth)
    return f"as the parameter {parameter} of the URL" if parameter else f"in the header {auth}"
