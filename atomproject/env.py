"""Read Django's settings from the environment and `.env`. A value that is wrong becomes a problem, never a traceback.

The marketplace's settings are passed on as they are written; `marketplace_sync.conf` parses them.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import environ

from atomproject.databases import DATABASE_URL, UNUSABLE, database_settings, protect_password
from atomproject.secret_key import kept_key
from marketplace_sync.redaction import protect
from marketplace_sync.setting import InvalidValueError, Kind, Setting, SettingProblem
from marketplace_sync.setting_values import parse, parse_bool, split_url

# fmt: off
ENVIRONMENT: tuple[Setting, ...] = (
    DATABASE_URL,
    Setting("DATABASE_STATEMENT_SECONDS", 46, Kind.FLOAT, "20",
            "A statement of a web process that takes longer is cancelled and answered with 503 (0: never).",
            0.01, 3600, (5, 60), "s", zero_is_off=True),
    Setting("REDIS_URL", 32, Kind.URL, "",
            "The channel layer between processes: redis://127.0.0.1:6379/0. Unset: within one process.",
            schemes=("redis", "rediss")),
    Setting("DJANGO_SECRET_KEY", 33, Kind.SECRET, "",
            "Signs sessions. Unset: created once and kept in .secret_key."),
    Setting("DJANGO_DEBUG", 34, Kind.BOOL, "false", "true: error pages with details, for development only."),
    Setting("DJANGO_ALLOWED_HOSTS", 35, Kind.TEXT, "localhost,127.0.0.1,[::1]",
            "Host names that the site answers to, separated by commas."),
    Setting("DJANGO_HTTPS", 36, Kind.BOOL, "false", "true: redirect to HTTPS, HSTS, secure cookies."),
    Setting("DJANGO_BEHIND_PROXY", 48, Kind.BOOL, "false",
            "true: a proxy terminates HTTPS and sets X-Forwarded-Proto itself, whatever a client sent; "
            "nobody else may reach this port. Set TRUSTED_PROXIES too."),
    Setting("LOG_LEVEL", 37, Kind.TEXT, "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL."),
    Setting("LOG_FORMAT", 38, Kind.TEXT, "console", "console: for people. json: one object per line."),
)
# fmt: on
BY_NAME = {setting.name: setting for setting in ENVIRONMENT}
DOTENV = Setting(".env", 39, Kind.TEXT, "", "The file of settings in the project folder.")


class Environment(environ.Env):  # type: ignore[misc]
    """The variables of the process, then those of `.env` that the process does not set.

    `problems`: what could not be read. The process's own environment stays as it is, so child processes read `.env`
    themselves. Values are taken literally: django-environ's casts would read a token that begins with `$` as the name
    of another variable.
    """

    def __init__(self, variables: Mapping[str, str], dotenv: Path | None, *, required: bool = False) -> None:
        """Read the variables. `required`: the operator named the file, so it must exist."""
        super().__init__()
        self.ENVIRON = dict(variables)
        self.problems: list[SettingProblem] = []
        self._of_process, self._dotenv = variables, dotenv
        if dotenv is not None:
            self._read_dotenv(dotenv, required=required)

    def raw(self, name: str) -> str:
        """Return the value as it is written, "" where there is none.

        Names of proxies are also written in small letters, which take precedence as in other programs.
        """
        value = self.ENVIRON.get(name, "")
        return str((self.ENVIRON.get(name.lower()) or value) if name.endswith("_PROXY") else value)

    def rereader(self, name: str) -> Callable[[], str] | None:
        """Return a function that reads this value from `.env` again; `None` if the value comes from the process.

        The function raises `ValueError` when the file is unreadable.
        """
        dotenv = self._dotenv
        if dotenv is None or name in self._of_process:
            return None

        def read() -> str:
            found = Environment({}, dotenv)
            for problem in found.problems:
                if problem.level == "error":
                    raise ValueError(problem.message)
            return found.raw(name)

        return read

    def names(self) -> tuple[str, ...]:
        """Return the names of all variables."""
        return tuple(self.ENVIRON)

    def flag(self, name: str) -> bool:
        """Return a boolean; for any other text the default, which is the careful choice for each."""
        setting = BY_NAME[name]
        try:
            return parse_bool(setting, self.raw(name).strip() or setting.default)
        except InvalidValueError as error:
            self._report(name, error)
            return parse_bool(setting, setting.default)

    def number(self, name: str) -> float:
        """Return a number; the default when it is invalid."""
        setting = BY_NAME[name]
        try:
            return float(parse(setting, self.raw(name).strip() or setting.default))
        except InvalidValueError as error:
            self._report(name, error)
            return float(setting.default)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of these words, which may be written in upper or lower case."""
        setting = BY_NAME[name]
        text = self.raw(name).strip() or setting.default
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        self._report(name, InvalidValueError(f"is {text[:40]!r}.", f"Write one of {', '.join(choices)}."))
        return setting.default

    def hosts(self) -> list[str]:
        """Return the names of `DJANGO_ALLOWED_HOSTS`."""
        setting = BY_NAME["DJANGO_ALLOWED_HOSTS"]
        hosts = [host.strip() for host in (self.raw(setting.name).strip() or setting.default).split(",")]
        for host in hosts:
            if "/" in host or any(char.isspace() for char in host):
                hint = "Write names only, such as mirror.example.com."
                self._report(setting.name, InvalidValueError(f"contains {host[:60]!r}.", hint))
                return setting.default.split(",")
        return [host for host in hosts if host]

    def database(self, folder: Path) -> dict[str, Any]:
        """Return Django's settings of the database; one that refuses every query where `DATABASE_URL` is invalid."""
        try:
            return database_settings(self.raw(DATABASE_URL.name).strip(), folder, self.db_url_config)
        except InvalidValueError as error:
            self._report(DATABASE_URL.name, error)
            return dict(UNUSABLE)

    def channel_layers(self) -> dict[str, Any]:
        """Return Django Channels' layers: Redis where `REDIS_URL` is set, otherwise within this process."""
        url = self.raw("REDIS_URL").strip()
        if url:
            try:
                parts = split_url(url, BY_NAME["REDIS_URL"].schemes, "REDIS_URL=redis://127.0.0.1:6379/0")
                if not (parts.path.strip("/") or "0").isdecimal():
                    hint = "For example: REDIS_URL=redis://127.0.0.1:6379/0"
                    raise InvalidValueError("has no number as its database.", hint)
            except InvalidValueError as error:
                self._report("REDIS_URL", error)
            else:
                protect_password(parts.password, parts.username, None)
                layer = "channels_redis.pubsub.RedisPubSubChannelLayer"
                return {"default": {"BACKEND": layer, "CONFIG": {"hosts": [url]}}}
        return {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

    def secret_key(self, kept_in: Path) -> str:
        """Return `DJANGO_SECRET_KEY`, or a random key that this file keeps for every process."""
        key = self.raw("DJANGO_SECRET_KEY").strip()
        if not key:
            try:
                key = kept_key(kept_in)
            except OSError as error:
                key = secrets.token_urlsafe(50)
                hint = "Set DJANGO_SECRET_KEY, or make the project folder writable: sessions end with the process."
                reason = f"is unset, and none can be kept in {kept_in.name}: {error.strerror or error}."
                self.problems.append(BY_NAME["DJANGO_SECRET_KEY"].problem("warning", reason, hint))
        protect(key)
        return key

    def _read_dotenv(self, path: Path, *, required: bool) -> None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            if required:
                hint = "Create it, or set DJANGO_ENV_FILE to the file's path; empty: no file is read."
                self.problems.append(DOTENV.problem("error", f"is expected at {path}, which does not exist.", hint))
            return
        except (OSError, UnicodeDecodeError) as error:
            reason = "is not UTF-8." if isinstance(error, UnicodeDecodeError) else f"is unreadable: {error.strerror}."
            self.problems.append(DOTENV.problem("error", reason, "Write it again; .env.example shows its form."))
            return
        kept = []
        for number, line in enumerate(text.splitlines(), 1):
            # django-environ would log an invalid line in full, and a token may be in it.
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, equals, value = line.removeprefix("export ").partition("=")
            if not equals or not name.isidentifier() or not name.isascii() or "\x00" in value:
                hint = "Write NAME=value, without spaces around the =."
                self.problems.append(DOTENV.problem("warning", f"line {number} is no setting; it is ignored.", hint))
                continue
            kept.append(f"{name}={value}")
        self.ENVIRON = _completed(self.ENVIRON, "\n".join(kept))

    def _report(self, name: str, error: InvalidValueError) -> None:
        self.problems.append(BY_NAME[name].problem("error", error.message, error.hint))


def read_environment(folder: Path) -> Environment:
    """Return the environment of this process, with the file of settings that `DJANGO_ENV_FILE` names.

    Its path is relative to `folder`; unset: `.env`; empty: no file is read.
    """
    dotenv = environ.Env().str("DJANGO_ENV_FILE", default=".env")
    return Environment(os.environ, folder / dotenv if dotenv else None, required="DJANGO_ENV_FILE" in os.environ)


def _completed(variables: dict[str, str], dotenv: str) -> dict[str, str]:
    """Return the variables with those of the text added that they do not have, quotes and escapes undone."""

    class Reader(environ.Env):  # type: ignore[misc]
        ENVIRON = dict(variables)  # noqa: RUF012 - of this one reading

    Reader.read_env(StringIO(dotenv))
    return Reader.ENVIRON
