"""Parse the raw value of a setting into a typed one, or report what to write instead."""

import math
import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import PurePath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from marketplace_sync.redaction import Secret
from marketplace_sync.setting import InvalidValueError, Kind, Networks, Setting
from marketplace_sync.variants import VariantError, read_auth, read_prefix

# How much of a value a message shows: enough to recognise it.
_SHOWN_CHARS = 60
_MAX_LIST_ITEMS = 100
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_UNSEEN = re.compile(r"[\s\x00-\x20\x7f-\xa0]")
# Other programs support SOCKS; `upstream.proxies` reports it where the mirror would have to.
_PROXY_SCHEMES = ("http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# Stands for clients that connect through a Unix socket, which have no address.
UNIX_SOCKET = "unix"


def parse(setting: Setting, raw: object) -> Any:
    """Return the typed value of a setting. `None`, or an empty text that does not count, is the default.

    Raises `InvalidValueError`. A value of the right Python type is accepted within the same bounds.
    """
    blank = isinstance(raw, str) and (not raw or (raw.isspace() and setting.kind is not Kind.SECRET))
    empty = raw is None or (blank and not setting.empty_counts)
    return _READERS[setting.kind](setting, setting.default if empty else raw)


def outside_recommended(setting: Setting, value: Any) -> str:
    """Return why a possible value is not recommended, as text after the setting's name; "" if it is."""
    low, high = setting.recommended
    if isinstance(value, Secret):
        return f"has only {len(value)} characters." if value and len(value) < low else ""
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool) or (number == 0 and setting.zero_is_off):
            continue
        if not low <= number <= high:
            return f"is {number:g}{_unit(setting)}; {_span(low, high)} is recommended."
    return ""


def is_loopback(host: str | None) -> bool:
    """Return whether a URL's host is this machine, so that no other machine can read the traffic."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def parse_bool(setting: Setting, raw: object) -> bool:
    """Return the boolean that the text means. Raises `InvalidValueError`."""
    if isinstance(raw, bool):
        return raw
    text = raw.strip().lower() if isinstance(raw, str) else ""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InvalidValueError(
        f"is {_shown(raw)}, which is neither true nor false.", f"Write {setting.name}=true or =false."
    )


def split_url(text: str, schemes: Sequence[str], example: str) -> SplitResult:
    """Split a URL that has one of these schemes and a host. Raises `InvalidValueError`, which never shows the URL."""
    hint = f"For example: {example}"
    if _UNSEEN.search(text):
        raise InvalidValueError("contains white space or control characters.", hint)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidValueError("is not a URL: its host or port is invalid.", hint) from None
    if parts.scheme not in schemes:
        raise InvalidValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}.", hint)
    if not host or port == 0:
        raise InvalidValueError("names no host." if not host else "has the impossible port 0.", hint)
    return parts


def _read_url(setting: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise InvalidValueError(f"is {_shown(raw)}, not a URL.", f"Write {setting.name}={setting.schemes[0]}://...")
    text = raw.strip()
    if not text:
        return ""
    parts = split_url(text, setting.schemes, f"{setting.name}={setting.schemes[0]}://api.atomsaas.com")
    if "@" in parts.netloc:
        raise InvalidValueError("must not contain a user name or password.", "Put the token into ATOM_SAAS_API_TOKEN.")
    if parts.query or "?" in text:
        raise InvalidValueError(
            "must not contain a query.", "End it before the ?. The token belongs in ATOM_SAAS_API_TOKEN."
        )
    if parts.fragment or "#" in text:
        raise InvalidValueError("must not contain a fragment.", "End it before the #.")
    return text.rstrip("/")


def _read_secret(setting: Setting, raw: object) -> Secret:
    if isinstance(raw, Secret):
        raw = raw.reveal()
    if not isinstance(raw, str):
        raise InvalidValueError("is not a text.", f"Write {setting.name}=..., as the marketplace issued it.")
    if raw and (not raw.isascii() or not raw.isprintable() or " " in raw):
        raise InvalidValueError(
            "contains white space, control or non-ASCII characters, which no HTTP header can carry.",
            "Copy it again as the marketplace issued it: a UUID or a JWT, nothing before or after.",
        )
    return Secret(raw)


def _read_text(_setting: Setting, raw: object) -> str:
    return str(raw).strip()


def _read_file(setting: Setting, raw: object) -> str:
    text = str(raw).strip() if isinstance(raw, str | PurePath) else "\0"
    if "\0" in text:
        raise InvalidValueError(
            f"is {_shown(raw)}, not the path of a file.", f"For example: {setting.name}=/etc/mirror/file"
        )
    return text


def _read_choice(setting: Setting, raw: object) -> str:
    text = str(raw).strip()
    if text not in setting.choices:
        raise InvalidValueError(f"is {_shown(raw)}.", f"Write {setting.name}={' or '.join(setting.choices)}.")
    return text


def _read_proxy(setting: Setting, raw: object) -> Secret:
    if isinstance(raw, Secret):
        raw = raw.reveal()
    example = f"{setting.name}=http://proxy.example:3128"
    if not isinstance(raw, str):
        raise InvalidValueError("is not a text.", f"For example: {example}")
    text = raw.strip()
    if not text:
        return Secret("")
    # As in other programs, a host alone is a proxy over plain HTTP.
    url = text if "://" in text else f"http://{text}"
    parts = split_url(url, _PROXY_SCHEMES, example)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidValueError("contains more than a login, a host and a port.", f"For example: {example}")
    return Secret(url.rstrip("/"))


def _read_hosts(setting: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise InvalidValueError(
            f"is {_shown(raw)}, not a text.", f"For example: {setting.name}=localhost,.example.com,10.0.0.0/8"
        )
    return raw.strip()


def _read_networks(setting: Setting, raw: object) -> Networks:
    items = raw.split(",") if isinstance(raw, str) else raw
    example = f"For example: {setting.name}=127.0.0.1,10.0.0.0/8,fd00::/8"
    if not isinstance(items, list | tuple):
        raise InvalidValueError(f"is {_shown(raw)}, not {setting.kind}.", example)
    networks, unix = [], False
    for item in (str(item).strip() for item in items):
        try:
            if item == UNIX_SOCKET:
                unix = True
            elif item:
                networks.append(ip_network(item, strict=False))
        except ValueError:
            raise InvalidValueError(
                f"contains {_shown(item)}, which is neither an address nor a network.", example
            ) from None
    return Networks(tuple(networks), unix)


def _read_variant(setting: Setting, raw: object) -> str:
    if not isinstance(raw, str):
        raise InvalidValueError(
            f"is {_shown(raw)}, not {setting.kind}.", f"The default is {setting.name}={setting.default}."
        )
    try:
        if setting.kind is Kind.PREFIX:
            return read_prefix(raw, setting.name)
        return read_auth(raw, setting.name, query=setting.kind is Kind.QUERY_AUTH)
    except VariantError as error:
        # The value is not shown: it may be a token in the wrong place.
        raise InvalidValueError(error.message, error.hint) from None


def _read_int(setting: Setting, raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return int(_bounded(setting, raw))
    if isinstance(raw, str) and _WHOLE.fullmatch(raw.strip()):
        return int(_bounded(setting, int(raw)))
    raise InvalidValueError(f"is {_shown(raw)}, not a whole number.", _advice(setting))


def _read_float(setting: Setting, raw: object) -> float:
    return _bounded(setting, _number(setting, raw)) * setting.scale


def _read_floats(setting: Setting, raw: object) -> tuple[float, ...]:
    items = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(items, list | tuple):
        raise InvalidValueError(f"is {_shown(raw)}, not {setting.kind}.", _advice(setting))
    if not 1 <= len(items) <= _MAX_LIST_ITEMS:
        raise InvalidValueError(f"has {len(items)} numbers; 1 to {_MAX_LIST_ITEMS} can be used.", _advice(setting))
    return tuple(_bounded(setting, _number(setting, item)) for item in items)


def _number(setting: Setting, raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        value = float(raw) if abs(raw) < 1e300 else math.inf
    elif isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
        value = float(raw)
    else:
        raise InvalidValueError(f"is {_shown(raw)}, not {Kind.FLOAT}.", _advice(setting))
    if not math.isfinite(value):
        raise InvalidValueError(f"is {_shown(raw)}; it must be finite.", _advice(setting))
    return value


def _bounded(setting: Setting, value: float) -> float:
    if setting.least <= value <= setting.most or (value == 0 and setting.zero_is_off):
        return value
    off = "0 (none), or " if setting.zero_is_off else ""
    span = _span(setting.least, setting.most)
    raise InvalidValueError(f"is {value:g}{_unit(setting)}; only {off}{span} is possible.", _advice(setting))


def _advice(setting: Setting) -> str:
    low, high = setting.recommended
    wise = f"; {_span(low, high)}{_unit(setting)} is recommended" if math.isfinite(low) else ""
    return f"The default is {setting.name}={setting.default}{wise}."


def _span(low: float, high: float) -> str:
    return f"{_plain(low)} to {_plain(high)}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def _unit(setting: Setting) -> str:
    return f" {setting.unit}" if setting.unit else ""


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


_READERS: dict[Kind, Callable[[Setting, object], Any]] = {
    Kind.BOOL: parse_bool,
    Kind.INT: _read_int,
    Kind.FLOAT: _read_float,
    Kind.FLOATS: _read_floats,
    Kind.URL: _read_url,
    Kind.SECRET: _read_secret,
    Kind.TEXT: _read_text,
    Kind.FILE: _read_file,
    Kind.CHOICE: _read_choice,
    Kind.PROXY: _read_proxy,
    Kind.HOSTS: _read_hosts,
    Kind.PREFIX: _read_variant,
    Kind.AUTH: _read_variant,
    Kind.QUERY_AUTH: _read_variant,
    Kind.NETWORKS: _read_networks,
}
