"""System checks: `manage.py check` tells everything that is wrong with the settings at once."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from marketplace_sync.conf import ConfigError, SettingProblem, find_problems, load_config, unknown_names
from marketplace_sync.upstream.access import access_problems


@register("marketplace_sync")
def check_settings(**_options: Any) -> list[CheckMessage]:
    """The settings of this app, see `conf.SETTINGS`."""
    return [_message(fault) for fault in find_problems(settings)]


@register("marketplace_sync")
def check_access(**_options: Any) -> list[CheckMessage]:
    """The files and proxies that the settings name. A missing token is an error only where one is needed."""
    try:
        config = load_config(settings)
    except ConfigError:
        return []  # `check_settings` tells it
    return [_message(fault) for fault in access_problems(config, token="warning")] if config.enabled else []


@register("marketplace_sync")
def check_environment(**_options: Any) -> list[CheckMessage]:
    """What the settings module could not read, and names in it that nothing reads.

    `ENVIRONMENT_FAULTS` and `ENVIRONMENT_NAMES` are the settings module's to fill; a project without
    them has nothing to tell here.
    """
    faults: Iterable[SettingProblem] = getattr(settings, "ENVIRONMENT_FAULTS", ())
    names: Iterable[str] = getattr(settings, "ENVIRONMENT_NAMES", ())
    return [_message(fault) for fault in (*faults, *unknown_names(names))]


def _message(fault: SettingProblem) -> CheckMessage:
    kind = Error if fault.level == "error" else Warning
    return kind(fault.message, hint=fault.hint, id=fault.id)
