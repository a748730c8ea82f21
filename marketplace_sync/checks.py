"""System checks: `manage.py check` tells everything that is wrong with the settings at once."""

from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from marketplace_sync.conf import ConfigError, Fault, find_faults, load_config, unknown_names
from marketplace_sync.upstream.access import access_faults


@register("marketplace_sync")
def check_settings(**_options: Any) -> list[CheckMessage]:
    """The settings of this app, see `conf.SETTINGS`."""
    return [_message(fault) for fault in find_faults(settings)]


@register("marketplace_sync")
def check_access(**_options: Any) -> list[CheckMessage]:
    """The files and proxies that the settings name. A missing token is an error only where one is needed."""
    try:
        config = load_config(settings)
    except ConfigError:
        return []  # `check_settings` tells it
    return [_message(fault) for fault in access_faults(config, token="warning")] if config.enabled else []


@register("marketplace_sync")
def check_environment(**_options: Any) -> list[CheckMessage]:
    """What the settings module could not read, and names in it that nothing reads.

    `ENVIRONMENT_FAULTS` and `ENVIRONMENT_NAMES` are the settings module's to fill; a project without
    them has nothing to tell here.
    """
    faults: Iterable[Fault] = getattr(settings, "ENVIRONMENT_FAULTS", ())
    names: Iterable[str] = getattr(settings, "ENVIRONMENT_NAMES", ())
    return [_message(fault) for fault in (*faults, *unknown_names(names))]


# What a project of somebody else's has to have beside this app, and why.
REQUIRED_APPS = {
    "django.contrib.admin": "the pages are its own",
    "django.contrib.sessions": "people log in",
    "unfold": "the admin's pages are made of it; before django.contrib.admin",
    "channels": "the live feed",
    "rest_framework": "the API",
    "django_filters": "the API's filters",
    "drf_spectacular": "the API's schema",
    "drf_spectacular_sidecar": "the API's docs without internet",
    "knox": "agents' keys",
}
REQUIRED_SETTINGS: dict[str, object] = {
    "KNOX_TOKEN_MODEL": "marketplace_sync.AgentKey",
    "REST_FRAMEWORK['DEFAULT_SCHEMA_CLASS']": "drf_spectacular.openapi.AutoSchema",
    "MIGRATION_MODULES['knox']": None,
    "USE_TZ": True,
}
_MISSING_APP, _OTHER_SETTING = "marketplace_sync.E090", "marketplace_sync.E091"


@register("marketplace_sync")
def check_project(**_options: Any) -> list[CheckMessage]:
    """What the project around this app has to have; `docs/embedding.md` has it ready to copy."""
    faults: list[CheckMessage] = [
        Error(f"{name} is not in INSTALLED_APPS: {why}.", hint=f'Add "{name}" to INSTALLED_APPS.', id=_MISSING_APP)
        for name, why in REQUIRED_APPS.items()
        if not apps.is_installed(name)
    ]
    for name, wanted in REQUIRED_SETTINGS.items():
        if _setting(name) != wanted:
            hint = f"Write {name} = {wanted!r}; docs/embedding.md has all of it."
            faults.append(Error(f"{name} is {_setting(name)!r}.", hint=hint, id=_OTHER_SETTING))
    return faults


def _setting(name: str) -> object:
    """A setting, or one entry of a setting that is a dict: `NAME['KEY']`. Not there: "unset"."""
    outer, _, inner = name.partition("[")
    value = getattr(settings, outer, "unset")
    return value.get(inner.strip("]'"), "unset") if inner and isinstance(value, dict) else value


def _message(fault: Fault) -> CheckMessage:
    kind = Error if fault.level == "error" else Warning
    return kind(fault.message, hint=fault.hint, id=fault.id)
