"""The classes by which settings are declared and their problems reported.

Pure, without Django: `conf` declares the settings of this app with them, and the project's `atomproject.env` those of
Django. `setting_values` parses their values.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

Level = Literal["error", "warning"]


class Kind(StrEnum):
    """The type of a setting's value, in words that complete "must be …"."""

    BOOL = "true or false"
    INT = "a whole number"
    FLOAT = "a number"
    FLOATS = "numbers separated by commas"
    URL = "a URL"
    SECRET = "a secret"
    TEXT = "a text"
    FILE = "the path of a file"
    CHOICE = "one of a few words"
    PROXY = "the URL of a proxy"
    HOSTS = "host names separated by commas"
    PREFIX = "the path of a URL, or nothing"
    AUTH = "bearer, or the name of a header"
    QUERY_AUTH = "query:NAME, bearer, or the name of a header"
    NETWORKS = "addresses and networks separated by commas"


@dataclass(frozen=True, slots=True)
class Networks:
    """Addresses and networks. `unix`: clients that connect through a Unix socket belong to them."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    unix: bool = False

    def contain(self, address: str) -> bool:
        """Return whether the address ("" for a Unix socket) belongs to one of them."""
        if not address:
            return self.unix
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one setting.

    `default` is written as in `.env`. `least` and `most` bound what is possible, `recommended` what is wise; both are
    inclusive and in the setting's own unit. `zero_is_off`: 0 is allowed below `least`. `scale` converts to the unit of
    the field (60 where minutes become seconds).
    """

    name: str
    number: int  # of its checks: marketplace_sync.E0nn and W0nn
    kind: Kind
    default: str
    help: str
    least: float = -math.inf
    most: float = math.inf
    recommended: tuple[float, float] = (-math.inf, math.inf)
    unit: str = ""
    zero_is_off: bool = False
    scale: float = 1
    schemes: tuple[str, ...] = ()  # of a URL
    choices: tuple[str, ...] = ()  # the words of a `CHOICE`
    empty_counts: bool = False  # set but empty is a value, and not the default
    field: str = ""  # of `conf.SyncConfig`; "" for a setting of Django

    def problem(self, level: Level, message: str, hint: str) -> "SettingProblem":
        """Return a problem of this setting. `message` follows the setting's name."""
        return SettingProblem(check_id(level, self.number), self.name, f"{self.name} {message}", hint, level)


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """A problem of a setting, for a person. Neither text ever contains the value of a secret."""

    id: str
    setting: str
    message: str
    hint: str
    level: Level = "error"

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"


class InvalidValueError(ValueError):
    """A value is not of its kind, or impossible. `hint` is what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def check_id(level: Level, number: int) -> str:
    """Return the id of a system check, such as `marketplace_sync.E031`."""
    return f"marketplace_sync.{'E' if level == 'error' else 'W'}{number:03d}"
