"""Django's database settings: made of `DATABASE_URL`, with the options that each of the two databases needs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import LazySettings

from marketplace_sync.postgres import set_up_sessions
from marketplace_sync.redaction import protect
from marketplace_sync.setting import InvalidValueError, Kind, Setting
from marketplace_sync.setting_values import parse_bool, split_url

DATABASE_URL = Setting(
    "DATABASE_URL", 31, Kind.URL, "",
    "The mirror's database: sqlite:///file or postgres://user:password@host:5432/name. "
    "Unset: db.sqlite3 in the project folder.",
    schemes=("sqlite", "postgres", "postgresql"),
)  # fmt: skip
# SQLite with several writers: 5,649 "locked" errors in 5 s with the defaults, 3,604 with WAL alone, none so.
# A cache of 6 MiB instead of 2 contains the upper levels of all indexes of 100,000 skills: writes cost a quarter less.
SQLITE_OPTIONS: Mapping[str, Any] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-6144;",
}
POSTGRES_OPTIONS: Mapping[str, Any] = {
    # A server that does not answer is noticed within seconds; the default waits for minutes.
    "connect_timeout": 5,
    # Django's None would prepare nothing, even where the mirror's SQL asks for it. Nothing else reaches this number.
    "prepare_threshold": 1_000_000_000,
    # A server that is gone, or behind a cut cable, is noticed after some 10 s. The defaults wait 15 minutes for an
    # acknowledgement and two hours for an answer.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The requests of a web process share these connections. Without a pool each opens its own, and 100 simultaneous ones
# reach PostgreSQL's limit of 100 (which has room for four such processes, a daemon and a standby). A request that gets
# none in time is answered with an error. The library's own reconnect back-off doubles for five minutes: 2 s instead.
# CONN_HEALTH_CHECKS tests a connection before it is used, since the server may have closed it.
POSTGRES_POOL: Mapping[str, Any] = {
    "min_size": 1, "max_size": 20, "timeout": 5.0, "max_idle": 60.0, "reconnect_timeout": 2.0,
}  # fmt: skip
# Under ASGI each request has a thread of its own: a connection kept for that thread would be kept for nobody, and they
# accumulate. The daemon's threads serve no requests, so their connections stay open regardless.
CONN_MAX_AGE = 0
# How long a request waits for another's write lock before it is answered with 503. The daemon waits 20 s. A batch of
# the daemon takes less than 2 s.
WEB_LOCK_SECONDS = 5

_HINT = "For example: DATABASE_URL=sqlite:///db.sqlite3 or postgres://user:password@127.0.0.1:5432/mirror"
# Booleans that Django reads beside OPTIONS; in a URL they are words, and "false" would count as true.
_FLAGS = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "CONN_HEALTH_CHECKS", "DISABLE_SERVER_SIDE_CURSORS")
# Options of SQLite that a URL may have, and the modes of a transaction. Another name or word fails at each connection.
_SQLITE_NAMES = ("timeout", "transaction_mode", "init_command", "cached_statements")
_SQLITE_MODES = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
# Refuses every query. A mirror in another place than the intended one would be worse.
UNUSABLE: Mapping[str, Any] = {"ENGINE": "django.db.backends.dummy", "NAME": ""}


def database_settings(url: str, folder: Path, parse_url: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return Django's settings of the database at this URL; a relative SQLite path is in `folder`, "" is the default.

    `parse_url` is django-environ's. Raises `InvalidValueError`.
    """
    if not url:
        return _sqlite(folder / "db.sqlite3", {})
    scheme = url.partition(":")[0]
    if scheme not in DATABASE_URL.schemes:
        raise InvalidValueError("must start with sqlite:/// or postgres://.", _HINT)
    try:
        host = urlsplit(url).netloc
        if scheme == "sqlite" and host:
            raise InvalidValueError("names a host, but a file has none: write three slashes.", _HINT)
        if host:
            split_url(url, DATABASE_URL.schemes, "DATABASE_URL=postgres://mirror:password@127.0.0.1:5432/mirror")
        found = _with_flags(parse_url(url))
    except InvalidValueError:
        raise
    except ValueError:
        raise InvalidValueError("is not a URL: its host or port is invalid.", _HINT) from None
    protect_password(found.get("PASSWORD"), found.get("USER"), found.get("NAME"))
    options = found.get("OPTIONS", {})
    _check_number("CONN_MAX_AGE", found.get("CONN_MAX_AGE"))
    if scheme == "sqlite":
        if found["NAME"] == ":memory:":
            raise InvalidValueError("is in memory, where no other thread or process finds it.", _HINT)
        return _sqlite(folder / found["NAME"], _checked_sqlite_options(options))
    if not found["NAME"]:
        raise InvalidValueError("names no database.", _HINT)
    if "pool" in options:
        raise InvalidValueError("has the option pool, which the web process sets itself.", "Remove it.")
    if options.get("isolation_level", 2) not in (1, 2, 3, 4):
        raise InvalidValueError("has an isolation_level that PostgreSQL does not have.", "Write 1, 2, 3 or 4.")
    return {"CONN_MAX_AGE": CONN_MAX_AGE, **found, "OPTIONS": {**POSTGRES_OPTIONS, **options}}


def for_web(database: dict[str, Any]) -> dict[str, Any]:
    """Return these settings of a database as a web process uses them: a pool on PostgreSQL, a shorter wait on SQLite.

    Not for the daemon, whose four threads keep one connection each.
    """
    if not database["ENGINE"].endswith("postgresql"):
        options = database["OPTIONS"]
        wait = {"timeout": min(options["timeout"], WEB_LOCK_SECONDS)} if "timeout" in options else {}
        return {**database, "OPTIONS": {**options, **wait}}
    options = {"pool": dict(POSTGRES_POOL), **database["OPTIONS"]}
    return {**database, "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": 0, "OPTIONS": options}


def set_up_web(settings: LazySettings) -> None:
    """Set up the database of a web process: its connections, their time limits and their waits.

    To be called before the first connection is opened.
    """
    from marketplace_sync.web.deadline import limit_statements  # needs settings, of which this module is a part

    settings.DATABASES["default"] = for_web(settings.DATABASES["default"])
    set_up_sessions(lock_timeout=f"{WEB_LOCK_SECONDS}s")
    limit_statements(settings.DATABASE_STATEMENT_SECONDS)


def protect_password(password: str | None, *known: str | None) -> None:
    """Hide a password from logs and debug pages, unless it equals a word that stands beside it in the open."""
    if password and password not in known:
        protect(password)


def _sqlite(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    if not path.parent.is_dir():
        raise InvalidValueError("names a file in a folder that does not exist.", f"Create it: mkdir -p {path.parent}")
    init_command = f"{SQLITE_OPTIONS['init_command']} {options.get('init_command', '')}".strip()
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": CONN_MAX_AGE,
        "OPTIONS": {**SQLITE_OPTIONS, **options, "init_command": init_command},
    }


def _checked_sqlite_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options; `InvalidValueError` for one with which Django or SQLite would refuse each connection."""
    for name in options:
        if name not in _SQLITE_NAMES:
            raise InvalidValueError(
                f"has the option {name[:40]!r}, which SQLite does not have.", f"Possible: {', '.join(_SQLITE_NAMES)}."
            )
    mode = options.get("transaction_mode", _SQLITE_MODES[0])
    if str(mode).upper() not in _SQLITE_MODES:
        raise InvalidValueError("has an unknown transaction_mode.", f"Write one of {', '.join(_SQLITE_MODES)}.")
    _check_number("cached_statements", options.get("cached_statements"))
    if "timeout" not in options:
        return dict(options)
    try:
        seconds = float(options["timeout"])  # django-environ reads whole numbers only
    except ValueError:
        seconds = options["timeout"]
    _check_number("timeout", seconds)
    return {**options, "timeout": seconds}


def _check_number(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidValueError(f"has a {name} that is not a number.", f"For example: {name}=20")


def _with_flags(database: dict[str, Any]) -> dict[str, Any]:
    flags = {}
    for name in _FLAGS:
        if name in database:
            try:
                flags[name] = parse_bool(DATABASE_URL, str(database[name]))
            except InvalidValueError:
                raise InvalidValueError(
                    f"has a {name} that is neither true nor false.", f"Write {name}=true or =false."
                ) from None
    return {**database, **flags}
