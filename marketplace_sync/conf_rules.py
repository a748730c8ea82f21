"""Rules that compare several settings. A setting that was refused has no value and is left out.

`values` maps the fields of `conf.SyncConfig` to their parsed values, `settings` the names to their declarations.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from marketplace_sync.setting import Level, Setting, SettingProblem, check_id
from marketplace_sync.setting_values import is_loopback

Settings = Mapping[str, Setting]
Values = Mapping[str, Any]


def ws_url_of(api_url: str) -> str:
    """Derive the URL of the stream from that of the API: https to wss, http to ws, the path replaced by `/ws`."""
    parts = urlsplit(api_url)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}/ws" if api_url else ""


def missing(settings: Settings, values: Values, level: Level) -> Iterator[SettingProblem]:
    """Yield a problem for the URL and the token where they are not set, unless the mirror is switched off."""
    if not values.get("enabled", True):
        return
    for name, example in (
        ("ATOM_SAAS_API_URL", "https://api.atomsaas.com"),
        ("ATOM_SAAS_API_TOKEN", "<token>"),
    ):
        setting = settings[name]
        if name == "ATOM_SAAS_API_TOKEN" and values.get("api_token_file", True):
            continue
        if not values.get(setting.field, True):
            hint = f"Set {name}={example} in the environment or in .env."
            yield setting.problem(level, "is not set.", hint)


def unencrypted(settings: Settings, values: Values) -> Iterator[SettingProblem]:
    """Yield a warning for each URL that sends the token over a network without TLS."""
    for name in ("ATOM_SAAS_API_URL", "ATOM_SAAS_WS_URL"):
        setting = settings[name]
        parts = urlsplit(values.get(setting.field, ""))
        if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname):
            yield setting.problem(
                "warning", "sends the token in clear text over the network.", f"Use {setting.schemes[0]}:// instead."
            )


def contradictions(settings: Settings, values: Values) -> Iterator[SettingProblem]:
    """Yield the problems of settings that contradict each other."""
    yield from _timing(values)
    yield from _urls(values)
    yield from _sizes(values)
    yield from _credentials(settings, values)
    yield from _health(values)


def _problem(level: Level, number: int, name: str, message: str, hint: str) -> SettingProblem:
    return SettingProblem(check_id(level, number), name, f"{name} {message}", hint, level)


def _timing(values: Values) -> Iterator[SettingProblem]:
    pong, ping = values.get("pong_timeout", 0), values.get("heartbeat_interval", 0)
    if pong and ping and pong >= ping:
        yield _problem("warning", 41, "ATOM_SAAS_WS_PONG_TIMEOUT",
                       f"({pong:g} s) is not below ATOM_SAAS_WS_HEARTBEAT_INTERVAL ({ping:g} s).",
                       "A dead peer is noticed later than necessary; the defaults are 10 and 30.")  # fmt: skip
    failures, attempts = values.get("fallback_after_failures", 0), values.get("reconnect_attempts", 0)
    if failures and attempts and failures > attempts:
        yield _problem("warning", 43, "ATOM_SAAS_WS_FALLBACK_AFTER_FAILURES",
                       f"({failures}) is above ATOM_SAAS_WS_RECONNECT_ATTEMPTS ({attempts}).",
                       "The stream is suspended before the fallback begins; the defaults are 3 and 10.")  # fmt: skip


def _urls(values: Values) -> Iterator[SettingProblem]:
    api, stream = values.get("api_url"), values.get("ws_url")
    if api and stream and urlsplit(api).hostname != urlsplit(stream).hostname:
        yield _problem("warning", 42, "ATOM_SAAS_WS_URL", "names another host than ATOM_SAAS_API_URL.",
                       "The token goes to both: leave ATOM_SAAS_WS_URL unset unless you mean it.")  # fmt: skip
    prefix = values.get("api_prefix", "")
    if api and prefix and urlsplit(api).path.endswith(prefix):
        yield _problem("warning", 73, "ATOM_SAAS_API_URL",
                       f"ends in {prefix}, which ATOM_SAAS_API_PREFIX adds once more.",
                       "Remove it from the URL, or set ATOM_SAAS_API_PREFIX to nothing.")  # fmt: skip


def _sizes(values: Values) -> Iterator[SettingProblem]:
    queue, message = values.get("queue_max_bytes", 0), values.get("max_message_bytes", 0)
    if queue and message and queue < message:
        yield _problem("error", 44, "ATOM_SAAS_QUEUE_MAX_BYTES",
                       f"({queue}) is below ATOM_SAAS_WS_MAX_MESSAGE_BYTES ({message}).",
                       "A message of the largest size could never be queued; set several times as much.")  # fmt: skip


def _credentials(settings: Settings, values: Values) -> Iterator[SettingProblem]:
    if values.get("api_token") and values.get("api_token_file"):
        yield settings["ATOM_SAAS_API_TOKEN_FILE"].problem(
            "error", "is set, and ATOM_SAAS_API_TOKEN too.",
            "Unset one of them: with ATOM_SAAS_API_TOKEN_FILE the token is in that file alone.",
        )  # fmt: skip
    if values.get("client_key_file") and not values.get("client_cert_file", True):
        yield settings["ATOM_SAAS_CLIENT_KEY_FILE"].problem(
            "error", "is set without its certificate.",
            "Set ATOM_SAAS_CLIENT_CERT_FILE as well, or unset ATOM_SAAS_CLIENT_KEY_FILE.",
        )  # fmt: skip


def _health(values: Values) -> Iterator[SettingProblem]:
    for unhealthy, degraded, field in (
        ("HEALTH_SYNC_UNHEALTHY_INTERVALS", "HEALTH_SYNC_DEGRADED_INTERVALS", "health_sync"),
        ("HEALTH_LAG_UNHEALTHY_SECONDS", "HEALTH_LAG_DEGRADED_SECONDS", "health_lag"),
    ):
        most, least = values.get(f"{field}_unhealthy", 0), values.get(f"{field}_degraded", 0)
        if most and least and most < least:
            yield _problem("warning", 67, unhealthy, f"({most:g}) is below {degraded} ({least:g}).",
                           "The state would never be degraded, only unhealthy; set a larger value.")  # fmt: skip
