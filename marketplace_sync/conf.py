"""The settings of the marketplace mirror: one table, one typed object, every fault at once.

`SETTINGS` is the source; parsing, the system checks, `.env.example` and the documentation follow it.
The values come from `django.conf.settings`, as text or as Python values.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from marketplace_sync.logs import Secret, protect
from marketplace_sync.setting_values import (
    InvalidValueError,
    Kind,
    Level,
    Networks,
    Setting,
    SettingProblem,
    fault_id,
    is_loopback,
    outside_recommended,
    parse,
)

__all__ = [
    "SETTINGS",
    "ConfigError",
    "Secret",
    "Setting",
    "SettingProblem",
    "SyncConfig",
    "find_problems",
    "load_config",
]

_MIB = 1024 * 1024

# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("ATOM_SAAS_API_URL", 1, Kind.URL, "", "Where the marketplace's HTTP API is.",
            "api_url", schemes=("https", "http")),
    Setting("ATOM_SAAS_WS_URL", 2, Kind.URL, "",
            "Where its live stream is. Unset: from the API URL, https to wss, path /ws.",
            "ws_url", schemes=("wss", "ws")),
    Setting("ATOM_SAAS_API_TOKEN", 3, Kind.SECRET, "", "The token that the marketplace gave: a UUID or a JWT.",
            "api_token", recommended=(8, 10_000), unit="characters"),
    Setting("ATOM_SAAS_API_PREFIX", 70, Kind.PREFIX, "/api/v1",
            "The path between ATOM_SAAS_API_URL and /skills; set but empty: none. /health has none.",
            "api_prefix", empty_counts=True),
    Setting("ATOM_SAAS_API_AUTH", 71, Kind.AUTH, "bearer",
            "What carries the token: bearer (the Authorization header), or the name of a header for the bare token.",
            "api_auth"),
    Setting("ATOM_SAAS_WS_AUTH", 72, Kind.QUERY_AUTH, "query:token",
            "The same for the stream's handshake; query:NAME is a parameter of its URL.", "ws_auth"),
    Setting("ATOM_SAAS_ENABLED", 4, Kind.BOOL, "true",
            "false: no connection is ever made, the local mirror is still served.", "enabled"),
    Setting("ATOM_SAAS_WS_ENABLED", 5, Kind.BOOL, "true", "false: polling only, no live stream.", "ws_enabled"),
    Setting("ATOM_SAAS_WS_CONNECT_TIMEOUT", 6, Kind.FLOAT, "5", "A connection that is not open by then has failed.",
            "connect_timeout", 0.01, 3600, (1, 30), "seconds"),
    Setting("ATOM_SAAS_WS_HEALTHY_AFTER", 7, Kind.FLOAT, "30",
            "A connection that has stood this long is healthy: the failure counters go back to 0.",
            "healthy_after", 0, 86_400, (10, 300), "seconds"),
    Setting("ATOM_SAAS_WS_HEARTBEAT_INTERVAL", 8, Kind.FLOAT, "30", "Time between our pings.",
            "heartbeat_interval", 0.01, 86_400, (5, 120), "seconds"),
    Setting("ATOM_SAAS_WS_PONG_TIMEOUT", 9, Kind.FLOAT, "10", "A ping not answered by then: the peer is dead.",
            "pong_timeout", 0.01, 86_400, (2, 60), "seconds"),
    # Below 1 s the marketplace's limit of 10 connection attempts a minute is passed.
    Setting("ATOM_SAAS_WS_RECONNECT_DELAYS", 10, Kind.FLOATS, "1,2,4,8,16",
            "Waits before each attempt to reconnect; the last one repeats.",
            "reconnect_delays", 0, 86_400, (1, 300), "seconds"),
    Setting("ATOM_SAAS_WS_RECONNECT_JITTER", 11, Kind.FLOAT, "0.1",
            "Up to this share of a delay is added at random (0: nothing).", "reconnect_jitter", 0, 1, (0, 0.5)),
    Setting("ATOM_SAAS_WS_RECONNECT_ATTEMPTS", 12, Kind.INT, "10",
            "Attempts without a healthy connection before the stream rests until a person asks.",
            "reconnect_attempts", 1, 1_000_000, (3, 100), "attempts"),
    Setting("ATOM_SAAS_WS_FALLBACK_AFTER_FAILURES", 13, Kind.INT, "3",
            "Failures in a row before it polls only.", "fallback_after_failures", 1, 1_000_000, (1, 10), "failures"),
    Setting("ATOM_SAAS_WS_FALLBACK_SECONDS", 14, Kind.FLOAT, "3600",
            "How long it polls only before the stream is tried again.",
            "fallback_seconds", 0.01, 2_592_000, (60, 86_400), "seconds"),
    Setting("ATOM_SAAS_WS_RATE_LIMIT", 15, Kind.FLOAT, "100", "Messages a second that are taken (0: no limit).",
            "rate_limit", 1, 1_000_000, (10, 10_000), "messages a second", zero_is_off=True),
    Setting("ATOM_SAAS_WS_MAX_MESSAGE_BYTES", 16, Kind.INT, "1048576",
            "A larger message becomes a dead letter.",
            "max_message_bytes", 1024, 64 * _MIB, (64 * 1024, 16 * _MIB), "bytes"),
    Setting("ATOM_SAAS_SYNC_INTERVAL_MINUTES", 17, Kind.FLOAT, "15", "Time between two full passes by listing.",
            "sync_interval_seconds", 0.001, 525_600, (1, 1440), "minutes", scale=60),
    Setting("ATOM_SAAS_PAGE_SIZE", 18, Kind.INT, "100", "Skills a page of the listing; the marketplace gives 1000.",
            "page_size", 1, 1000, (20, 1000), "skills"),
    Setting("ATOM_SAAS_API_REQUESTS_PER_MINUTE", 19, Kind.INT, "100",
            "HTTP requests in any 60 s (0: no limit). The marketplace answers more than 100 with 429.",
            "requests_per_minute", 1, 1_000_000, (10, 100), "requests", zero_is_off=True),
    Setting("ATOM_SAAS_API_TIMEOUT_SECONDS", 20, Kind.FLOAT, "30", "A request not answered whole by then has failed.",
            "api_timeout", 0.01, 3600, (5, 120), "seconds"),
    Setting("ATOM_SAAS_QUEUE_MAX_BYTES", 21, Kind.INT, "67108864",
            "Received and not yet written, at most; past it messages are shed and a pass follows.",
            "queue_max_bytes", 1024, 16_384 * _MIB, (_MIB, 1024 * _MIB), "bytes"),
    Setting("ATOM_SAAS_API_MAX_BODY_BYTES", 22, Kind.INT, "67108864", "A larger HTTP answer is refused.",
            "max_body_bytes", 1024, 16_384 * _MIB, (_MIB, 1024 * _MIB), "bytes"),
    Setting("ATOM_SAAS_MAX_PAGES", 23, Kind.INT, "10000", "A listing that goes on longer is refused as endless.",
            "max_pages", 1, 10_000_000, (100, 100_000), "pages"),
    Setting("FEED_KEEP_DAYS", 24, Kind.FLOAT, "30", "How long the change feed is kept.",
            "feed_keep_days", 0.001, 36_500, (1, 365), "days"),
    Setting("FEED_KEEP_ROWS", 25, Kind.INT, "1000000", "Changes that the feed keeps at most.",
            "feed_keep_rows", 1, 10_000_000_000, (10_000, 100_000_000), "changes"),
    Setting("RUNS_KEEP_DAYS", 26, Kind.FLOAT, "30", "How long ended passes are kept; those held back stay.",
            "runs_keep_days", 0.001, 36_500, (1, 365), "days"),
    Setting("COMMANDS_KEEP_DAYS", 27, Kind.FLOAT, "30", "How long answered commands are kept.",
            "commands_keep_days", 0.001, 36_500, (1, 365), "days"),
    Setting("DEAD_LETTERS_KEEP_DAYS", 28, Kind.FLOAT, "30", "How long a dead letter that does not come again is kept.",
            "dead_letters_keep_days", 0.001, 36_500, (1, 365), "days"),
    Setting("DEAD_LETTERS_KEEP_ROWS", 29, Kind.INT, "10000", "Dead letters that are kept at most, the latest.",
            "dead_letters_keep_rows", 1, 10_000_000_000, (100, 1_000_000), "dead letters"),
    Setting("AUDIT_KEEP_DAYS", 30, Kind.FLOAT, "365",
            "`archiveaudit` moves older audit rows into a file; nothing else ever deletes one.",
            "audit_keep_days", 0.001, 36_500, (30, 3650), "days"),
    Setting("ATOM_SAAS_API_TOKEN_FILE", 50, Kind.FILE, "",
            "A file that holds the token, instead of ATOM_SAAS_API_TOKEN; a changed one is noticed within a second.",
            "api_token_file"),
    Setting("ATOM_SAAS_CA_FILE", 51, Kind.FILE, "",
            "Certificates (PEM) of the authorities that the marketplace's may come from. Unset: those of the system.",
            "ca_file"),
    Setting("ATOM_SAAS_CLIENT_CERT_FILE", 52, Kind.FILE, "",
            "Our certificate (PEM), for a marketplace that asks for one.", "client_cert_file"),
    Setting("ATOM_SAAS_CLIENT_KEY_FILE", 53, Kind.FILE, "",
            "Its private key (PEM, without a passphrase). Unset: in ATOM_SAAS_CLIENT_CERT_FILE.", "client_key_file"),
    Setting("ATOM_SAAS_TLS_MIN_VERSION", 54, Kind.CHOICE, "1.2", "The oldest version of TLS that is used: 1.2 or 1.3.",
            "tls_min_version", choices=("1.2", "1.3")),
    Setting("HTTPS_PROXY", 55, Kind.PROXY, "",
            "The proxy to a marketplace at https:// and wss://: http://user:password@host:port.", "https_proxy"),
    Setting("HTTP_PROXY", 56, Kind.PROXY, "", "The proxy to one at http:// and ws://.", "http_proxy"),
    Setting("ALL_PROXY", 57, Kind.PROXY, "", "The proxy where neither of those two is set.", "all_proxy"),
    Setting("NO_PROXY", 58, Kind.HOSTS, "",
            "Hosts that no proxy is used for: names (and all below them), addresses, networks; * is every host.",
            "no_proxy"),
    Setting("TRUSTED_PROXIES", 49, Kind.NETWORKS, "",
            "Proxies in front of the web server whose X-Forwarded-For counts: addresses, networks, or unix for a "
            "Unix socket. Unset: nobody's.", "trusted_proxies"),
    Setting("APPROVALS_BY_AGENTS", 60, Kind.BOOL, "false",
            "true: agents may approve the deletion of skills that a sync run holds; else only persons may.",
            "approvals_by_agents"),
    Setting("METRICS_PUBLIC", 61, Kind.BOOL, "false", "true: /metrics asks nobody for a key.", "metrics_public"),
    Setting("HEALTH_PASS_DEGRADED_INTERVALS", 62, Kind.FLOAT, "3",
            "/health/sync is degraded after that many poll intervals without a clean pass.",
            "health_pass_degraded", 0.01, 1_000_000, (1.5, 100), "intervals"),
    Setting("HEALTH_PASS_UNHEALTHY_INTERVALS", 63, Kind.FLOAT, "12",
            "/health/sync is unhealthy after that many poll intervals without a clean pass.",
            "health_pass_unhealthy", 0.01, 1_000_000, (3, 1000), "intervals"),
    Setting("HEALTH_LAG_DEGRADED_SECONDS", 64, Kind.FLOAT, "60",
            "/health/sync is degraded when all changes of a minute come later than this.",
            "health_lag_degraded", 0.01, 86_400, (5, 3600), "seconds"),
    Setting("HEALTH_LAG_UNHEALTHY_SECONDS", 65, Kind.FLOAT, "900",
            "/health/sync is unhealthy when all changes of a minute come later than this.",
            "health_lag_unhealthy", 0.01, 86_400, (30, 86_400), "seconds"),
    Setting("HEALTH_DEAD_LETTERS_PER_HOUR", 66, Kind.INT, "100",
            "/health/sync is degraded when that many different dead letters came within an hour (0: never).",
            "health_dead_letters", 1, 1_000_000, (1, 10_000), "dead letters", zero_is_off=True),
)
# fmt: on

BY_NAME = {setting.name: setting for setting in SETTINGS}
# Numbers of the checks that hold several settings against each other.
PONG_LATER_THAN_PING, HOSTS_DIFFER, FALLBACK_NEVER, QUEUE_TOO_SMALL, UNKNOWN_NAME = 41, 42, 43, 44, 45
TOKEN_TWICE, KEY_ALONE = BY_NAME["ATOM_SAAS_API_TOKEN_FILE"].number, BY_NAME["ATOM_SAAS_CLIENT_KEY_FILE"].number
NEVER_DEGRADED = 67
PREFIX_TWICE = 73


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """How to mirror the marketplace. Durations are in seconds. See `SETTINGS` for what each field means."""

    enabled: bool = True
    api_url: str = ""  # without a slash at its end; empty: not set
    api_token: Secret = Secret("")  # noqa: RUF009 - immutable
    ws_url: str = ""  # from `api_url` where not set; empty only when that is too
    api_prefix: str = "/api/v1"  # begins with a slash and ends with none; empty: none
    api_auth: str = "bearer"  # or the name of a header, see `variants`
    ws_auth: str = "query:token"  # likewise, or another parameter of the URL
    ws_enabled: bool = True
    connect_timeout: float = 5.0
    healthy_after: float = 30.0
    heartbeat_interval: float = 30.0
    pong_timeout: float = 10.0
    reconnect_delays: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    reconnect_jitter: float = 0.1
    reconnect_attempts: int = 10
    fallback_after_failures: int = 3
    fallback_seconds: float = 3600.0
    rate_limit: float = 100.0  # messages a second; 0: none
    max_message_bytes: int = 1_048_576
    sync_interval_seconds: float = 900.0
    page_size: int = 100
    requests_per_minute: int = 100  # 0: none
    api_timeout: float = 30.0
    queue_max_bytes: int = 64 * _MIB
    max_body_bytes: int = 64 * _MIB
    max_pages: int = 10_000
    feed_keep_days: float = 30.0
    feed_keep_rows: int = 1_000_000
    runs_keep_days: float = 30.0
    commands_keep_days: float = 30.0
    dead_letters_keep_days: float = 30.0
    dead_letters_keep_rows: int = 10_000
    audit_keep_days: float = 365.0
    api_token_file: str = ""  # where set, `api_token` is empty, and `upstream.token` has the token
    ca_file: str = ""  # empty: the system's trust
    client_cert_file: str = ""
    client_key_file: str = ""
    tls_min_version: str = "1.2"
    https_proxy: Secret = Secret("")  # noqa: RUF009 - URLs that may hold a login
    http_proxy: Secret = Secret("")  # noqa: RUF009
    all_proxy: Secret = Secret("")  # noqa: RUF009
    no_proxy: str = ""
    trusted_proxies: Networks = Networks(())  # noqa: RUF009 - immutable
    approvals_by_agents: bool = False
    metrics_public: bool = False
    health_pass_degraded: float = 3.0  # poll intervals
    health_pass_unhealthy: float = 12.0
    health_lag_degraded: float = 60.0
    health_lag_unhealthy: float = 900.0
    health_dead_letters: int = 100  # different ones an hour; 0: never


class ConfigError(Exception):
    """The settings can't work. `faults` names each reason; the text is one line a fault."""

    def __init__(self, faults: tuple[SettingProblem, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def load_config(settings: object, *, need_marketplace: bool = False) -> SyncConfig:
    """The settings of this app, parsed, its token hidden from logs from now on.

    Raises `ConfigError` with every error there is. `need_marketplace`: a missing URL or token is one,
    unless `ATOM_SAAS_ENABLED` is false.
    """
    values, faults = _read(settings, need_marketplace=need_marketplace)
    errors = tuple(fault for fault in faults if fault.level == "error")
    if errors:
        raise ConfigError(errors)
    return SyncConfig(**values)


def find_problems(settings: object, *, need_marketplace: bool = False) -> tuple[SettingProblem, ...]:
    """Everything wrong or unwise in the settings, errors and warnings, in the order of the table."""
    return tuple(_read(settings, need_marketplace=need_marketplace)[1])


def unknown_names(names: Iterable[str]) -> tuple[SettingProblem, ...]:
    """A warning for each `ATOM_SAAS_*` name that no setting has: a misspelt one has no effect."""
    faults = []
    for name in sorted({name for name in names if name.startswith("ATOM_SAAS_")} - BY_NAME.keys()):
        near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0)[0]
        faults.append(
            SettingProblem(
                fault_id("warning", UNKNOWN_NAME),
                name,
                f"{name} is no setting of this project; it has no effect.",
                f"Did you mean {near}?",
                "warning",
            )
        )
    return tuple(faults)


def ws_url_of(api_url: str) -> str:
    """Where the stream is when only the API is known: https to wss, http to ws, the path replaced by `/ws`."""
    parts = urlsplit(api_url)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/ws" if api_url else ""


def _read(settings: object, *, need_marketplace: bool) -> tuple[dict[str, Any], list[SettingProblem]]:
    values: dict[str, Any] = {}
    faults: list[SettingProblem] = []
    for setting in SETTINGS:
        raw = getattr(settings, setting.name, None)
        if setting.kind is Kind.SECRET and isinstance(raw, str | Secret):
            protect(raw)  # before it is looked at: also a token that is refused is never to be seen
        try:
            values[setting.field] = value = parse(setting, raw)
        except InvalidValueError as unfit:
            faults.append(setting.fault("error", unfit.message, unfit.hint))
            continue
        unwise = outside_recommended(setting, value if setting.scale == 1 else value / setting.scale)
        if unwise:
            faults.append(setting.fault("warning", unwise, f"The default is {setting.name}={setting.default}."))
    faults += _missing(values, "error" if need_marketplace else "warning")
    faults += _clear_text(values)
    if not values.get("ws_url", True):
        values["ws_url"] = ws_url_of(values.get("api_url", ""))
    faults += _together(values)
    return values, faults


def _missing(values: dict[str, Any], level: Level) -> Iterable[SettingProblem]:
    if not values.get("enabled", True):
        return
    for name, example in (
        ("ATOM_SAAS_API_URL", "https://api.atomsaas.com"),
        ("ATOM_SAAS_API_TOKEN", "the token that the marketplace gave"),
    ):
        setting = BY_NAME[name]
        if name == "ATOM_SAAS_API_TOKEN" and values.get("api_token_file", True):
            continue
        if not values.get(setting.field, True):
            hint = f"Set it in the environment or in .env: {name}={example}"
            yield setting.fault(level, "is not set.", hint)


def _clear_text(values: dict[str, Any]) -> Iterable[SettingProblem]:
    for name in ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"):
        setting = BY_NAME[name]
        parts = urlsplit(values.get(setting.field, ""))
        if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname):
            yield setting.fault(
                "warning", "sends the token in clear text over the network.", f"Use {setting.schemes[0]}:// instead."
            )


def _together(values: dict[str, Any]) -> Iterable[SettingProblem]:
    """What each setting alone can't tell. A setting that was refused already is left out."""

    def fault(level: Level, number: int, name: str, message: str, hint: str) -> SettingProblem:
        return SettingProblem(fault_id(level, number), name, f"{name} {message}", hint, level)

    pong, ping = values.get("pong_timeout", 0), values.get("heartbeat_interval", 0)
    if pong and ping and pong >= ping:
        yield fault("warning", PONG_LATER_THAN_PING, "ATOM_SAAS_WS_PONG_TIMEOUT",
                    f"({pong:g} s) is not below ATOM_SAAS_WS_HEARTBEAT_INTERVAL ({ping:g} s).",
                    "A dead peer is noticed later than it need be; the defaults are 10 and 30.")  # fmt: skip
    api, stream = values.get("api_url"), values.get("ws_url")
    if api and stream and urlsplit(api).hostname != urlsplit(stream).hostname:
        yield fault("warning", HOSTS_DIFFER, "ATOM_SAAS_WS_URL", "names another host than ATOM_SAAS_API_URL.",
                    "The token goes to both: leave ATOM_SAAS_WS_URL unset unless you mean it.")  # fmt: skip
    prefix = values.get("api_prefix", "")
    if api and prefix and urlsplit(api).path.endswith(prefix):
        yield fault("warning", PREFIX_TWICE, "ATOM_SAAS_API_URL",
                    f"ends in {prefix}, which ATOM_SAAS_API_PREFIX adds once more.",
                    "Take it off the URL, or set ATOM_SAAS_API_PREFIX to nothing.")  # fmt: skip
    failures, attempts = values.get("fallback_after_failures", 0), values.get("reconnect_attempts", 0)
    if failures and attempts and failures > attempts:
        yield fault("warning", FALLBACK_NEVER, "ATOM_SAAS_WS_FALLBACK_AFTER_FAILURES",
                    f"({failures}) is above ATOM_SAAS_WS_RECONNECT_ATTEMPTS ({attempts}).",
                    "The stream rests for good before it polls for an hour; the defaults are 3 and 10.")  # fmt: skip
    queue, message = values.get("queue_max_bytes", 0), values.get("max_message_bytes", 0)
    if queue and message and queue < message:
        yield fault("error", QUEUE_TOO_SMALL, "ATOM_SAAS_QUEUE_MAX_BYTES",
                    f"({queue}) is below ATOM_SAAS_WS_MAX_MESSAGE_BYTES ({message}).",
                    "A message of the largest size could never be taken; make it several times as large.")  # fmt: skip
    if values.get("api_token") and values.get("api_token_file"):
        yield fault("error", TOKEN_TWICE, "ATOM_SAAS_API_TOKEN_FILE", "is set, and ATOM_SAAS_API_TOKEN too.",
                    "Unset one of them: with ATOM_SAAS_API_TOKEN_FILE the token is in that file alone.")  # fmt: skip
    if values.get("client_key_file") and not values.get("client_cert_file", True):
        yield fault("error", KEY_ALONE, "ATOM_SAAS_CLIENT_KEY_FILE", "is set without its certificate.",
                    "Set ATOM_SAAS_CLIENT_CERT_FILE as well, or unset ATOM_SAAS_CLIENT_KEY_FILE.")  # fmt: skip
    for worse, better, field in (
        ("HEALTH_PASS_UNHEALTHY_INTERVALS", "HEALTH_PASS_DEGRADED_INTERVALS", "health_pass"),
        ("HEALTH_LAG_UNHEALTHY_SECONDS", "HEALTH_LAG_DEGRADED_SECONDS", "health_lag"),
    ):
        most, least = values.get(f"{field}_unhealthy", 0), values.get(f"{field}_degraded", 0)
        if most and least and most < least:
            yield fault("warning", NEVER_DEGRADED, worse, f"({most:g}) is below {better} ({least:g}).",
                        "It would be unhealthy without having been degraded; make it larger.")  # fmt: skip
