"""System checks: `manage.py check` reports every problem of the settings."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from marketplace_sync.conf import ConfigError, SettingProblem, find_problems, load_config, unknown_names
from marketplace_sync.upstream.access import access_problems


@register("marketplace_sync")
def check_settings(**_options: Any) -> list[CheckMessage]:
    """Check the settings of this app, see `conf.SETTINGS`."""
    return [_message(problem) for problem in find_problems(settings)]


@register("marketplace_sync")
def check_access(**_options: Any) -> list[CheckMessage]:
    """Check the files and proxies that the settings name. A missing token is an error only where it is needed."""
    try:
        config = load_config(settings)
    except ConfigError:
        return []  # `check_settings` reports it
    return [_message(problem) for problem in access_problems(config, token="warning")] if config.enabled else []


@register("marketplace_sync")
def check_environment(**_options: Any) -> list[CheckMessage]:
    """Report values that the settings module could not read, and names that nothing reads.

    The settings module may define `ENVIRONMENT_PROBLEMS` and `ENVIRONMENT_NAMES`; without them nothing is reported.
    """
    problems: Iterable[SettingProblem] = getattr(settings, "ENVIRONMENT_PROBLEMS", ())
    names: Iterable[str] = getattr(settings, "ENVIRONMENT_NAMES", ())
    return [_message(problem) for problem in (*problems, *unknown_names(names))]


def _message(problem: SettingProblem) -> CheckMessage:
    kind = Error if problem.level == "error" else Warning
    return kind(problem.message, hint=problem.hint, id=problem.id)
