"""The settings of the marketplace mirror: one declaration per setting, one typed object, every problem in one report.

Each field of `SyncConfig` declares its setting: name, number of its check, kind, default, help, bounds. Parsing, the
system checks, `.env.example` and docs/settings.md follow from it. The values come from `django.conf.settings`, as text
or as Python values.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from marketplace_sync import conf_rules
from marketplace_sync.logs import Secret, protect
from marketplace_sync.setting import InvalidValueError, Kind, Networks, Setting, SettingProblem, check_id
from marketplace_sync.setting_values import outside_recommended, parse

__all__ = [
    "BY_NAME",
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


def _setting(name: str, number: int, kind: Kind, default: str, help: str, *bounds: Any, **more: Any) -> Any:
    """Declare a setting: a field of `SyncConfig` with its default, and the `Setting` as its metadata."""
    setting = Setting(name, number, kind, default, help, *bounds, **more)
    return field(default=parse(setting, None), metadata={"setting": setting})


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncConfig:
    """The parsed settings of this app. Durations are in seconds, whatever the unit of the setting.

    The numbers after the help text are the least and the greatest possible value, then the recommended range.
    """

    # fmt: off
    # Without a slash at its end. Empty: not set.
    api_url: str = _setting("ATOM_SAAS_API_URL", 1, Kind.URL, "", "The URL of the marketplace's HTTP API.",
        schemes=("https", "http"))
    # From `api_url` where it is not set; empty only when that is too.
    ws_url: str = _setting("ATOM_SAAS_WS_URL", 2, Kind.URL, "",
        "The URL of the live stream. Unset: derived from the API URL, https to wss, path /ws.", schemes=("wss", "ws"))
    api_token: Secret = _setting("ATOM_SAAS_API_TOKEN", 3, Kind.SECRET, "",
        "The token that the marketplace issued: a UUID or a JWT.", recommended=(8, 10_000), unit="characters")
    # Begins with a slash and ends without one. Empty: none.
    api_prefix: str = _setting("ATOM_SAAS_API_PREFIX", 70, Kind.PREFIX, "/api/v1",
        "The path between ATOM_SAAS_API_URL and /skills. Set but empty: none. /health has no prefix.",
        empty_counts=True)
    api_auth: str = _setting("ATOM_SAAS_API_AUTH", 71, Kind.AUTH, "bearer",
        "How requests carry the token: bearer (the Authorization header), or the name of a header for the bare token.")
    ws_auth: str = _setting("ATOM_SAAS_WS_AUTH", 72, Kind.QUERY_AUTH, "query:token",
        "How the stream's handshake carries the token: query:NAME (a parameter of the URL), bearer, or a header name.")
    enabled: bool = _setting("ATOM_SAAS_ENABLED", 4, Kind.BOOL, "true",
        "false: never connect; the local mirror is still served.")
    ws_enabled: bool = _setting("ATOM_SAAS_WS_ENABLED", 5, Kind.BOOL, "true", "false: polling only, no live stream.")
    connect_timeout: float = _setting("ATOM_SAAS_WS_CONNECT_TIMEOUT", 6, Kind.FLOAT, "5",
        "A connection that is not open after this time has failed.", 0.01, 3600, (1, 30), "seconds")
    healthy_after: float = _setting("ATOM_SAAS_WS_HEALTHY_AFTER", 7, Kind.FLOAT, "30",
        "A connection that has been open this long is healthy: the failure counters are reset.",
        0, 86_400, (10, 300), "seconds")
    heartbeat_interval: float = _setting("ATOM_SAAS_WS_HEARTBEAT_INTERVAL", 8, Kind.FLOAT, "30",
        "Time between two pings.", 0.01, 86_400, (5, 120), "seconds")
    pong_timeout: float = _setting("ATOM_SAAS_WS_PONG_TIMEOUT", 9, Kind.FLOAT, "10",
        "A peer that has not answered a ping after this time is dead.", 0.01, 86_400, (2, 60), "seconds")
    # Below 1 s the attempts exceed the marketplace's limit of 10 connections per minute.
    reconnect_delays: tuple[float, ...] = _setting("ATOM_SAAS_WS_RECONNECT_DELAYS", 10, Kind.FLOATS, "1,2,4,8,16",
        "Delays before each attempt to reconnect; the last one repeats.", 0, 86_400, (1, 300), "seconds")
    reconnect_jitter: float = _setting("ATOM_SAAS_WS_RECONNECT_JITTER", 11, Kind.FLOAT, "0.1",
        "The largest random share that is added to a delay (0: none).", 0, 1, (0, 0.5))
    reconnect_attempts: int = _setting("ATOM_SAAS_WS_RECONNECT_ATTEMPTS", 12, Kind.INT, "10",
        "Attempts without a healthy connection before the stream is suspended until somebody reconnects it.",
        1, 1_000_000, (3, 100), "attempts")
    fallback_after_failures: int = _setting("ATOM_SAAS_WS_FALLBACK_AFTER_FAILURES", 13, Kind.INT, "3",
        "Consecutive failures before the daemon falls back to polling.", 1, 1_000_000, (1, 10), "failures")
    fallback_seconds: float = _setting("ATOM_SAAS_WS_FALLBACK_SECONDS", 14, Kind.FLOAT, "3600",
        "Time in the fallback before the stream is tried again.", 0.01, 2_592_000, (60, 86_400), "seconds")
    rate_limit: float = _setting("ATOM_SAAS_WS_RATE_LIMIT", 15, Kind.FLOAT, "100",
        "Messages accepted per second (0: no limit).", 1, 1_000_000, (10, 10_000), "messages per second",
        zero_is_off=True)
    max_message_bytes: int = _setting("ATOM_SAAS_WS_MAX_MESSAGE_BYTES", 16, Kind.INT, "1048576",
        "A larger message becomes a dead letter.", 1024, 64 * _MIB, (64 * 1024, 16 * _MIB), "bytes")
    sync_interval_seconds: float = _setting("ATOM_SAAS_SYNC_INTERVAL_MINUTES", 17, Kind.FLOAT, "15",
        "Time between two full syncs.", 0.001, 525_600, (1, 1440), "minutes", scale=60)
    page_size: int = _setting("ATOM_SAAS_PAGE_SIZE", 18, Kind.INT, "100",
        "Skills per page of the listing; the marketplace serves at most 1000.", 1, 1000, (20, 1000), "skills")
    requests_per_minute: int = _setting("ATOM_SAAS_API_REQUESTS_PER_MINUTE", 19, Kind.INT, "100",
        "HTTP requests in any 60 s (0: no limit). The marketplace answers more than 100 with 429.",
        1, 1_000_000, (10, 100), "requests", zero_is_off=True)
    api_timeout: float = _setting("ATOM_SAAS_API_TIMEOUT_SECONDS", 20, Kind.FLOAT, "30",
        "A request whose response is not complete after this time has failed.", 0.01, 3600, (5, 120), "seconds")
    queue_max_bytes: int = _setting("ATOM_SAAS_QUEUE_MAX_BYTES", 21, Kind.INT, "67108864",
        "The most that may be received and not yet written; beyond it messages are shed and a full sync follows.",
        1024, 16_384 * _MIB, (_MIB, 1024 * _MIB), "bytes")
    max_body_bytes: int = _setting("ATOM_SAAS_API_MAX_BODY_BYTES", 22, Kind.INT, "67108864",
        "A larger HTTP response is refused.", 1024, 16_384 * _MIB, (_MIB, 1024 * _MIB), "bytes")
    max_pages: int = _setting("ATOM_SAAS_MAX_PAGES", 23, Kind.INT, "10000",
        "A listing with more pages is refused as endless.", 1, 10_000_000, (100, 100_000), "pages")
    feed_keep_days: float = _setting("FEED_KEEP_DAYS", 24, Kind.FLOAT, "30", "How long the change feed is kept.",
        0.001, 36_500, (1, 365), "days")
    feed_keep_rows: int = _setting("FEED_KEEP_ROWS", 25, Kind.INT, "1000000", "The most changes that the feed keeps.",
        1, 10_000_000_000, (10_000, 100_000_000), "changes")
    runs_keep_days: float = _setting("RUNS_KEEP_DAYS", 26, Kind.FLOAT, "30",
        "How long ended sync runs are kept; those with removals on hold stay.", 0.001, 36_500, (1, 365), "days")
    commands_keep_days: float = _setting("COMMANDS_KEEP_DAYS", 27, Kind.FLOAT, "30",
        "How long finished commands are kept.", 0.001, 36_500, (1, 365), "days")
    dead_letters_keep_days: float = _setting("DEAD_LETTERS_KEEP_DAYS", 28, Kind.FLOAT, "30",
        "How long a dead letter is kept after it was last received.", 0.001, 36_500, (1, 365), "days")
    dead_letters_keep_rows: int = _setting("DEAD_LETTERS_KEEP_ROWS", 29, Kind.INT, "10000",
        "The most dead letters that are kept; the oldest go first.", 1, 10_000_000_000, (100, 1_000_000),
        "dead letters")
    audit_keep_days: float = _setting("AUDIT_KEEP_DAYS", 30, Kind.FLOAT, "365",
        "`archiveaudit` moves older audit rows to a file; nothing else ever deletes one.",
        0.001, 36_500, (30, 3650), "days")
    # Where it is set, `api_token` is empty and `upstream.token` reads the token.
    api_token_file: str = _setting("ATOM_SAAS_API_TOKEN_FILE", 50, Kind.FILE, "",
        "A file that contains the token, instead of ATOM_SAAS_API_TOKEN; a change is noticed within one second.")
    ca_file: str = _setting("ATOM_SAAS_CA_FILE", 51, Kind.FILE, "",
        "Certificates (PEM) of the authorities that may issue the marketplace's. Unset: those of the system.")
    client_cert_file: str = _setting("ATOM_SAAS_CLIENT_CERT_FILE", 52, Kind.FILE, "",
        "The client certificate (PEM), for a marketplace that requires one.")
    client_key_file: str = _setting("ATOM_SAAS_CLIENT_KEY_FILE", 53, Kind.FILE, "",
        "The private key of the client certificate (PEM, no passphrase). Unset: in ATOM_SAAS_CLIENT_CERT_FILE.")
    tls_min_version: str = _setting("ATOM_SAAS_TLS_MIN_VERSION", 54, Kind.CHOICE, "1.2",
        "The oldest version of TLS that is accepted: 1.2 or 1.3.", choices=("1.2", "1.3"))
    # URLs of proxies may contain a login.
    https_proxy: Secret = _setting("HTTPS_PROXY", 55, Kind.PROXY, "",
        "The proxy for https:// and wss://: http://user:password@host:port.")
    http_proxy: Secret = _setting("HTTP_PROXY", 56, Kind.PROXY, "", "The proxy for http:// and ws://.")
    all_proxy: Secret = _setting("ALL_PROXY", 57, Kind.PROXY, "", "The proxy where neither of those two is set.")
    no_proxy: str = _setting("NO_PROXY", 58, Kind.HOSTS, "",
        "Hosts that are reached without a proxy: names (with their subdomains), addresses, networks; * is every host.")
    trusted_proxies: Networks = _setting("TRUSTED_PROXIES", 49, Kind.NETWORKS, "",
        "Proxies in front of the web server whose X-Forwarded-For is believed: addresses, networks, or unix for a "
        "Unix socket. Unset: none.")
    approvals_by_agents: bool = _setting("APPROVALS_BY_AGENTS", 60, Kind.BOOL, "false",
        "true: agents may approve removals on hold; otherwise only people may.")
    metrics_public: bool = _setting("METRICS_PUBLIC", 61, Kind.BOOL, "false", "true: /metrics needs no key.")
    health_sync_degraded: float = _setting("HEALTH_SYNC_DEGRADED_INTERVALS", 62, Kind.FLOAT, "3",
        "/health/sync is degraded after this many poll intervals without a clean sync.",
        0.01, 1_000_000, (1.5, 100), "intervals")
    health_sync_unhealthy: float = _setting("HEALTH_SYNC_UNHEALTHY_INTERVALS", 63, Kind.FLOAT, "12",
        "/health/sync is unhealthy after this many poll intervals without a clean sync.",
        0.01, 1_000_000, (3, 1000), "intervals")
    health_lag_degraded: float = _setting("HEALTH_LAG_DEGRADED_SECONDS", 64, Kind.FLOAT, "60",
        "/health/sync is degraded when every change of a minute has a greater lag.",
        0.01, 86_400, (5, 3600), "seconds")
    health_lag_unhealthy: float = _setting("HEALTH_LAG_UNHEALTHY_SECONDS", 65, Kind.FLOAT, "900",
        "/health/sync is unhealthy when every change of a minute has a greater lag.",
        0.01, 86_400, (30, 86_400), "seconds")
    health_dead_letters: int = _setting("HEALTH_DEAD_LETTERS_PER_HOUR", 66, Kind.INT, "100",
        "/health/sync is degraded when this many different dead letters were received within an hour (0: never).",
        1, 1_000_000, (1, 10_000), "dead letters", zero_is_off=True)
    # fmt: on


SETTINGS: tuple[Setting, ...] = tuple(replace(one.metadata["setting"], field=one.name) for one in fields(SyncConfig))
BY_NAME = {setting.name: setting for setting in SETTINGS}
# The number of the check that finds misspelt names.
UNKNOWN_NAME = 45


class ConfigError(Exception):
    """The settings cannot work. `problems` lists each reason; the text has one line per problem."""

    def __init__(self, problems: tuple[SettingProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load_config(settings: object, *, need_marketplace: bool = False) -> SyncConfig:
    """Parse the settings of this app, and hide its token from the log from now on.

    Raises `ConfigError` with every error. `need_marketplace`: a missing URL or token is an error, unless
    `ATOM_SAAS_ENABLED` is false.
    """
    values, problems = _read(settings, need_marketplace=need_marketplace)
    errors = tuple(problem for problem in problems if problem.level == "error")
    if errors:
        raise ConfigError(errors)
    return SyncConfig(**values)


def find_problems(settings: object, *, need_marketplace: bool = False) -> tuple[SettingProblem, ...]:
    """Return the errors and warnings of all settings, in the order of their declaration."""
    return tuple(_read(settings, need_marketplace=need_marketplace)[1])


def unknown_names(names: Iterable[str]) -> tuple[SettingProblem, ...]:
    """Return a warning for each name that is no setting but was probably meant as one, since it has no effect.

    Every `ATOM_SAAS_*` name is meant as one; of `HEALTH_*`, which other programs use too, the similar ones.
    """
    problems = []
    for name in sorted(set(names) - BY_NAME.keys()):
        cutoff = {"ATOM": 0.0, "HEALTH": 0.8}.get(name.split("_")[0])
        if cutoff is None or (cutoff == 0 and not name.startswith("ATOM_SAAS_")):
            continue
        for similar in difflib.get_close_matches(name, BY_NAME, n=1, cutoff=cutoff):
            message = f"{name} is no setting of this project; it has no effect."
            problems.append(
                SettingProblem(check_id("warning", UNKNOWN_NAME), name, message, f"Did you mean {similar}?", "warning")
            )
    return tuple(problems)


def _read(settings: object, *, need_marketplace: bool) -> tuple[dict[str, Any], list[SettingProblem]]:
    values: dict[str, Any] = {}
    problems: list[SettingProblem] = []
    for setting in SETTINGS:
        raw = getattr(settings, setting.name, None)
        if setting.kind is Kind.SECRET and isinstance(raw, str | Secret):
            protect(raw)  # before it is parsed: a token that is refused must not be seen either
        try:
            values[setting.field] = value = parse(setting, raw)
        except InvalidValueError as error:
            problems.append(setting.problem("error", error.message, error.hint))
            continue
        unwise = outside_recommended(setting, value if setting.scale == 1 else value / setting.scale)
        if unwise:
            problems.append(setting.problem("warning", unwise, f"The default is {setting.name}={setting.default}."))
    problems += conf_rules.missing(BY_NAME, values, "error" if need_marketplace else "warning")
    problems += conf_rules.unencrypted(BY_NAME, values)
    if not values.get("ws_url", True):
        values["ws_url"] = conf_rules.ws_url_of(values.get("api_url", ""))
    problems += conf_rules.contradictions(BY_NAME, values)
    return values, problems
