"""What the environment and `.env` say about Django itself, read so that a fault is told and never a traceback.

The values of `ATOM_SAAS_*` and `FEED_*` pass through as they are; `marketplace_sync.conf` reads them.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ

from marketplace_sync.redaction import protect
from marketplace_sync.setting_values import (
    InvalidValueError,
    Kind,
    Setting,
    SettingProblem,
    parse,
    parse_bool,
    split_url,
)

# fmt: off
ENVIRONMENT: tuple[Setting, ...] = (
    Setting("DATABASE_URL", 31, Kind.URL, "",
            "Where the mirror is kept: sqlite:///file or postgres://user:password@host:5432/name. "
            "Unset: db.sqlite3 in the project folder.", schemes=("sqlite", "postgres", "postgresql")),
    Setting("DATABASE_STATEMENT_SECONDS", 46, Kind.FLOAT, "20",
            "A statement of a web process that takes longer is cancelled, and answered with 503; 0: never.",
            least=0.01, most=3600, recommended=(5, 60), unit="s", zero_is_off=True),
    Setting("REDIS_URL", 32, Kind.URL, "",
            "Carries hints between processes: redis://127.0.0.1:6379/0. Unset: within one process.",
            schemes=("redis", "rediss")),
    Setting("DJANGO_SECRET_KEY", 33, Kind.SECRET, "", "Signs sessions. Unset: made once and kept in .secret_key."),
    Setting("DJANGO_DEBUG", 34, Kind.BOOL, "false", "true: error pages with details, for development alone."),
    Setting("DJANGO_ALLOWED_HOSTS", 35, Kind.TEXT, "localhost,127.0.0.1,[::1]",
            "Host names that the site answers to, with commas between."),
    Setting("DJANGO_HTTPS", 36, Kind.BOOL, "false", "true: redirect to HTTPS, HSTS, secure cookies."),
    Setting("DJANGO_BEHIND_PROXY", 48, Kind.BOOL, "false",
            "true: a proxy ends HTTPS and sets X-Forwarded-Proto itself, whatever a client sent; "
            "nobody else may reach this port. Set TRUSTED_PROXIES too."),
    Setting("LOG_LEVEL", 37, Kind.TEXT, "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL."),
    Setting("LOG_FORMAT", 38, Kind.TEXT, "console", "console: for people. json: one object a line."),
)
# fmt: on
BY_NAME = {setting.name: setting for setting in ENVIRONMENT}
DOTENV = Setting(".env", 39, Kind.TEXT, "", "The file of settings in the project folder.")

# SQLite with several writers: 5,649 "locked" errors in 5 s with the defaults, 3,604 with WAL alone, none so.
# A cache of 6 MiB instead of 2 holds the upper levels of all indexes of 100,000 skills: a write costs a quarter less.
SQLITE_OPTIONS: Mapping[str, Any] = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-6144;",
}
POSTGRES_OPTIONS: Mapping[str, Any] = {
    # A database that does not answer is told about within seconds; the default waits for minutes.
    "connect_timeout": 5,
    # Django's None would have nothing prepared, also where `mirror.sql` asks for it. Nothing else reaches this number.
    "prepare_threshold": 1_000_000_000,
    # A server whose host is gone, or behind a cut cable, is noticed after some 10 s; the defaults wait for 15 minutes
    # (what we sent is not acknowledged) and two hours (we wait for an answer).
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# What all requests of a web process share. Without, each opens a connection of its own, and a hundred at once have
# PostgreSQL refuse them all (it takes 100: room for four such processes, a daemon and a standby). A request that finds
# none free in time is answered with an error. A lost server is tried again every second or two: the library's own
# back-off doubles for five minutes. A connection is looked at before it is handed out (CONN_HEALTH_CHECKS), for the
# server may have ended it meanwhile.
POSTGRES_POOL: Mapping[str, Any] = {
    "min_size": 1, "max_size": 20, "timeout": 5.0, "max_idle": 60.0, "reconnect_timeout": 2.0,
}  # fmt: skip
# A web request under ASGI has a thread of its own: a connection kept for the thread would be kept for nobody, and
# they add up. The daemon's threads are no requests, so theirs stay open whatever this says.
CONN_MAX_AGE = 0
# How long a request waits for somebody else's write lock before it is answered with 503. The daemon has 20 s: it would
# rather wait. A batch of the daemon's is over in 2 s.
WEB_LOCK_SECONDS = 5


def shared(database: dict[str, Any]) -> dict[str, Any]:
    """That database as a web process uses it: on PostgreSQL its requests share a pool of connections.

    Not for the daemon, whose four threads keep one each. On SQLite a request waits less long for the write lock; the
    entry points say the same to PostgreSQL.
    """
    if not database["ENGINE"].endswith("postgresql"):
        options = database["OPTIONS"]
        wait = {"timeout": min(options["timeout"], WEB_LOCK_SECONDS)} if "timeout" in options else {}
        return {**database, "OPTIONS": {**options, **wait}}
    options = {"pool": dict(POSTGRES_POOL), **database["OPTIONS"]}
    return {**database, "CONN_HEALTH_CHECKS": True, "CONN_MAX_AGE": 0, "OPTIONS": options}


class Environment(environ.Env):  # type: ignore[misc]
    """The variables of the process, then those of `.env` that it lacks. `faults`: what could not be read.

    The process's own environment stays as it is, so child processes read `.env` themselves. Values are
    taken literally: django-environ would read one that begins with `$` as another variable's name.
    """

    def __init__(self, variables: Mapping[str, str], dotenv: Path | None, *, named: bool = False) -> None:
        """`named`: somebody wrote down where the file is, so it has to be there."""
        super().__init__()
        self.ENVIRON = dict(variables)
        self.faults: list[SettingProblem] = []
        self._of_the_process, self._dotenv = variables, dotenv
        if dotenv is not None:
            self._read_dotenv(dotenv, named=named)

    def raw(self, name: str) -> str:
        """The value as it is written, "" when there is none.

        The names of proxies are written in small letters too, which win, as for every other program.
        """
        value = self.ENVIRON.get(name, "")
        return str((self.ENVIRON.get(name.lower()) or value) if name.endswith("_PROXY") else value)

    def again(self, name: str) -> Callable[[], str] | None:
        """Reads this value out of `.env` as that file is by then; `None` where it comes from the process.

        What it gives raises `ValueError` when the file can't be read.
        """
        dotenv = self._dotenv
        if dotenv is None or name in self._of_the_process:
            return None

        def read() -> str:
            found = Environment({}, dotenv)
            for fault in found.faults:
                if fault.level == "error":
                    raise ValueError(fault.message)
            return found.raw(name)

        return read

    def names(self) -> tuple[str, ...]:
        return tuple(self.ENVIRON)

    def flag(self, name: str) -> bool:
        """A true-or-false; the default when it is neither, which is the careful answer for each."""
        setting = BY_NAME[name]
        try:
            return parse_bool(setting, self.raw(name).strip() or setting.default)
        except InvalidValueError as unfit:
            self._fault(name, unfit)
            return parse_bool(setting, setting.default)

    def number(self, name: str) -> float:
        """A number; the default when it cannot be read."""
        setting = BY_NAME[name]
        try:
            return float(parse(setting, self.raw(name).strip() or setting.default))
        except InvalidValueError as unfit:
            self._fault(name, unfit)
            return float(setting.default)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of these words, upper or lower case."""
        setting = BY_NAME[name]
        text = self.raw(name).strip() or setting.default
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        self._fault(name, InvalidValueError(f"is {text[:40]!r}.", f"Write one of {', '.join(choices)}."))
        return setting.default

    def hosts(self) -> list[str]:
        """`DJANGO_ALLOWED_HOSTS`."""
        setting = BY_NAME["DJANGO_ALLOWED_HOSTS"]
        hosts = [host.strip() for host in (self.raw(setting.name).strip() or setting.default).split(",")]
        for host in hosts:
            if "/" in host or any(char.isspace() for char in host):
                self._fault(
                    setting.name, InvalidValueError(f"has {host[:60]!r}.", "Names alone, such as mirror.example.com.")
                )
                return setting.default.split(",")
        return [host for host in hosts if host]

    def database(self, folder: Path) -> dict[str, Any]:
        """Django's settings of the database. A relative SQLite path is in `folder`.

        What can't be read gives a database that refuses every query: a mirror written to another place
        than the one that was meant would be worse.
        """
        url = self.raw("DATABASE_URL").strip()
        if not url:
            return self._sqlite(folder / "db.sqlite3", {})
        try:
            return self._database_of(url, folder)
        except InvalidValueError as unfit:
            self._fault("DATABASE_URL", unfit)
            return {"ENGINE": "django.db.backends.dummy", "NAME": ""}

    def channel_layers(self) -> dict[str, Any]:
        """Django Channels' layers: Redis where `REDIS_URL` is set, otherwise within this process."""
        url = self.raw("REDIS_URL").strip()
        if url:
            try:
                parts = split_url(url, BY_NAME["REDIS_URL"].schemes, "REDIS_URL=redis://127.0.0.1:6379/0")
                if not (parts.path.strip("/") or "0").isdecimal():
                    raise InvalidValueError(
                        "has no number as its database.", "For example: REDIS_URL=redis://127.0.0.1:6379/0"
                    )
            except InvalidValueError as unfit:
                self._fault("REDIS_URL", unfit)
            else:
                _protect_password(parts.password, parts.username, None)
                layer = "channels_redis.pubsub.RedisPubSubChannelLayer"
                return {"default": {"BACKEND": layer, "CONFIG": {"hosts": [url]}}}
        return {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

    def secret_key(self, kept_in: Path) -> str:
        """`DJANGO_SECRET_KEY`, or a random key kept in this file, the same for every process."""
        key = self.raw("DJANGO_SECRET_KEY").strip()
        if not key:
            try:
                key = _kept_key(kept_in)
            except OSError as fault:
                key = secrets.token_urlsafe(50)
                hint = "Set DJANGO_SECRET_KEY, or let the project folder be written to: sessions end with the process."
                reason = f"is unset, and none can be kept in {kept_in.name}: {fault.strerror or fault}."
                self.faults.append(BY_NAME["DJANGO_SECRET_KEY"].fault("warning", reason, hint))
        protect(key)
        return key

    def _read_dotenv(self, path: Path, *, named: bool) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            if named:
                hint = "Put it there, or let DJANGO_ENV_FILE name where it is; empty: no file is read."
                self.faults.append(DOTENV.fault("error", f"is to be {path}, which is not there.", hint))
            return
        except (OSError, UnicodeDecodeError) as fault:
            reason = "is not UTF-8." if isinstance(fault, UnicodeDecodeError) else f"can't be read: {fault.strerror}."
            self.faults.append(DOTENV.fault("error", reason, "Write it anew; .env.example shows its form."))
            return
        kept = []
        for number, line in enumerate(text.splitlines(), 1):
            # django-environ would log such a line whole, and a token may be in it.
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.removeprefix("export ").partition("=")
            if not equals or not name.isidentifier() or not name.isascii() or "\x00" in value:
                hint = "Write NAME=value, without spaces around the =."
                self.faults.append(DOTENV.fault("warning", f"line {number} is no setting; it is ignored.", hint))
                continue
            kept.append(f"{name}={value}")
        self.ENVIRON = _completed(self.ENVIRON, "\n".join(kept))

    def _database_of(self, url: str, folder: Path) -> dict[str, Any]:
        schemes = BY_NAME["DATABASE_URL"].schemes
        scheme = url.partition(":")[0]
        if scheme not in schemes:
            raise InvalidValueError("must start with sqlite:/// or postgres://.", _DATABASE_HINT)
        try:
            host = urlsplit(url).netloc
            if scheme == "sqlite" and host:
                raise InvalidValueError("names a host, which a file has not: it needs three slashes.", _DATABASE_HINT)
            if host:
                split_url(url, schemes, "DATABASE_URL=postgres://mirror:password@127.0.0.1:5432/mirror")
            found = _with_flags(self.db_url_config(url))
        except InvalidValueError:
            raise
        except ValueError:
            raise InvalidValueError("is not a URL: its host or port can't be read.", _DATABASE_HINT) from None
        _protect_password(found.get("PASSWORD"), found.get("USER"), found.get("NAME"))
        options = found.get("OPTIONS", {})
        if scheme == "sqlite":
            if found["NAME"] == ":memory:":
                raise InvalidValueError("is in memory, where no second thread or process finds it.", _DATABASE_HINT)
            return self._sqlite(folder / found["NAME"], options)
        if not found["NAME"]:
            raise InvalidValueError("names no database.", _DATABASE_HINT)
        return {
            "CONN_MAX_AGE": CONN_MAX_AGE,
            **found,
            "OPTIONS": {**POSTGRES_OPTIONS, **options},
        }

    def _sqlite(self, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        if not path.parent.is_dir():
            raise InvalidValueError(
                "names a file in a folder that does not exist.", f"Make it first: mkdir -p {path.parent}"
            )
        more = f"{SQLITE_OPTIONS['init_command']} {options.get('init_command', '')}".strip()
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            "CONN_MAX_AGE": CONN_MAX_AGE,
            "OPTIONS": {**SQLITE_OPTIONS, **options, "init_command": more},
        }

    def _fault(self, name: str, unfit: InvalidValueError) -> None:
        self.faults.append(BY_NAME[name].fault("error", unfit.message, unfit.hint))


_DATABASE_HINT = "For example: DATABASE_URL=sqlite:///db.sqlite3 or postgres://user:password@127.0.0.1:5432/mirror"


# What Django reads beside OPTIONS; in a URL these are words.
_FLAGS = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "CONN_HEALTH_CHECKS", "DISABLE_SERVER_SIDE_CURSORS")


def _with_flags(database: dict[str, Any]) -> dict[str, Any]:
    """These settings of a database with its flags as booleans: "false" would count as true."""
    flags = {}
    for name in _FLAGS:
        if name in database:
            try:
                flags[name] = parse_bool(BY_NAME["DATABASE_URL"], str(database[name]))
            except InvalidValueError:
                raise InvalidValueError(
                    f"has a {name} that is neither true nor false.", f"Write {name}=true or =false."
                ) from None
    return {**database, **flags}


def _protect_password(password: str | None, *known: str | None) -> None:
    """Hide it from logs and debug pages, unless it is a word that stands beside it and so is no secret."""
    if password and password not in known:
        protect(password)


def _completed(variables: dict[str, str], dotenv: str) -> dict[str, str]:
    """These variables, and those of the text that are not among them, quotes and escapes undone."""

    class Reader(environ.Env):  # type: ignore[misc]
        ENVIRON = dict(variables)  # noqa: RUF012 - of this one reading

    Reader.read_env(StringIO(dotenv))
    return Reader.ENVIRON


def _kept_key(path: Path) -> str:
    """The key in this file, made when there is none.

    It is written under another name and linked into place, so it appears whole or not at all, and of
    several processes that start together one wins and all read its key.
    """
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = ""
    if key:
        return key
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50) + "\n")
        if path.exists() and not path.read_text().strip():
            # Empty, as after a full disk: no process can have used it.
            draft.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text().strip()
