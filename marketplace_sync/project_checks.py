"""System checks of the project that embeds this app. `docs/embedding.md` has all required settings, ready to copy."""

from collections.abc import Callable, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.admin.sites import all_sites
from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error, register
from django.db import DEFAULT_DB_ALIAS, router
from unfold.apps import DefaultAppConfig  # type: ignore[import-untyped]
from unfold.sites import UnfoldAdminSite  # type: ignore[import-untyped]

from marketplace_sync.governance.agent_users import fields_without_value
from marketplace_sync.models import Agent

# The apps that an embedding project needs, and why.
REQUIRED_APPS = {
    "django.contrib.admin": "the mirror's pages are part of the admin",
    "django.contrib.sessions": "people log in with them",
    "unfold": "the mirror's pages use its components",
    "channels": "the live feed uses it",
    "rest_framework": "the API uses it",
    "django_filters": "the API's filters use it",
    "drf_spectacular": "the API's schema uses it",
    "drf_spectacular_sidecar": "the API's documentation works offline",
    "knox": "agents' keys use it",
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
    """Check that the project has the required apps and settings."""
    problems: list[CheckMessage] = [
        Error(f"{name} is not in INSTALLED_APPS: {why}.", hint=f'Add "{name}" to INSTALLED_APPS.', id=_MISSING_APP)
        for name, why in REQUIRED_APPS.items()
        if not apps.is_installed(name)
    ]
    for name, wanted in REQUIRED_SETTINGS.items():
        if _setting(name) != wanted:
            hint = f"Set {name} = {wanted!r}; docs/embedding.md has all required settings."
            problems.append(Error(f"{name} is {_setting(name)!r}.", hint=hint, id=_OTHER_SETTING))
    return problems


def _setting(name: str) -> object:
    """Return a setting, or one entry of a setting that is a dict: `NAME['KEY']`. If absent: "unset"."""
    outer, _, inner = name.partition("[")
    value = getattr(settings, outer, "unset")
    return value.get(inner.strip("]'"), "unset") if inner and isinstance(value, dict) else value


@register("marketplace_sync")
def check_routers(**_options: Any) -> list[CheckMessage]:
    """Check that no database router sends the mirror or its users to another database.

    One transaction writes rows and feed, under a lock in the same database, and each agent has a user.
    """
    users = get_user_model()
    found = []
    for model in (*apps.get_app_config("marketplace_sync").get_models(), users):
        for what, ask in _ROUTES:
            alias = ask(model)
            if alias != DEFAULT_DB_ALIAS:
                found.append(f"{model._meta.label} is {what} {alias!r}")
    if not router.allow_relation(Agent(), users()):
        found.append(f"{Agent._meta.label} may not refer to {users._meta.label}")
    if not router.allow_migrate(DEFAULT_DB_ALIAS, "marketplace_sync"):
        found.append(f"marketplace_sync is not migrated in {DEFAULT_DB_ALIAS!r}")
    if not found:
        return []
    more = f", and {len(found) - 1} more like this" if len(found) > 1 else ""
    return [
        Error(
            f"DATABASE_ROUTERS send the mirror away from the database {DEFAULT_DB_ALIAS!r}: {found[0]}{more}.",
            hint=f"Let your routers return None or {DEFAULT_DB_ALIAS!r} for the app label marketplace_sync and for "
            f"{users._meta.label}, in db_for_read, db_for_write, allow_relation and allow_migrate.",
            id="marketplace_sync.E092",
        )
    ]


_ROUTES: Sequence[tuple[str, Callable[[Any], str]]] = (
    ("read from", router.db_for_read),
    ("written to", router.db_for_write),
)


@register("marketplace_sync")
def check_admin_design(**_options: Any) -> list[CheckMessage]:
    """Check that unfold, which the mirror's pages use, does not change other admin sites of the project."""
    names = [config.name for config in apps.get_app_configs()]
    if "unfold" not in names or "django.contrib.admin" not in names:
        return []
    first = names.index("unfold") < names.index("django.contrib.admin")
    if not first and isinstance(apps.get_app_config("unfold"), DefaultAppConfig):
        problem = "unfold comes after django.contrib.admin, so it drops the pages registered before it."
        hint = 'Replace it with "unfold.apps.BasicAppConfig", or put "unfold" before "django.contrib.admin".'
        return [Error(problem, hint=hint, id="marketplace_sync.E095")]
    default_site = getattr(apps.get_app_config("admin"), "default_site", _DJANGOS_SITE)
    if first and isinstance(apps.get_app_config("unfold"), DefaultAppConfig) and default_site != _DJANGOS_SITE:
        problem = f"unfold replaces {default_site}, the admin site of this project."
        return [Error(problem, hint=_LEAVE, id="marketplace_sync.E095")]
    plain = [site.name for site in all_sites if site._registry and not isinstance(site, UnfoldAdminSite)]
    if first and plain:
        problem = f"Unfold's templates replace Django's on the admin site {min(plain)!r}, which is not unfold's."
        return [Error(problem, hint=_LEAVE, id="marketplace_sync.E095")]
    return []


_DJANGOS_SITE = "django.contrib.admin.sites.AdminSite"
_LEAVE = (
    'To keep the site unchanged, put "unfold.apps.BasicAppConfig" after "django.contrib.admin" in INSTALLED_APPS. '
    "To use unfold's design, put it before, and derive the site from unfold.sites.UnfoldAdminSite."
)


@register("marketplace_sync")
def check_user_model(**_options: Any) -> list[CheckMessage]:
    """Check that a user can be created for an agent."""
    users = get_user_model()
    missing = fields_without_value(users)
    if not missing:
        return []
    return [
        Error(
            f"No agent can be registered: its {users._meta.label} has no {', '.join(missing)}.",
            hint=f"Give {', '.join(missing)} a default, or null=True.",
            id="marketplace_sync.E093",
        )
    ]


@register("marketplace_sync")
def check_autocommit(**_options: Any) -> list[CheckMessage]:
    """Check that Django commits each statement outside transactions."""
    if settings.DATABASES.get(DEFAULT_DB_ALIAS, {}).get("AUTOCOMMIT", True):
        return []
    return [
        Error(
            f"DATABASES[{DEFAULT_DB_ALIAS!r}]['AUTOCOMMIT'] is False: nothing commits what the mirror writes.",
            hint="Remove AUTOCOMMIT, or set it to True.",
            id="marketplace_sync.E094",
        )
    ]


def project_errors() -> list[CheckMessage]:
    """Return the errors with which a command that writes must not start. Only the settings are checked."""
    checks = (check_project, check_routers, check_user_model, check_autocommit)
    return [message for check in checks for message in check(app_configs=None) if message.is_serious()]
