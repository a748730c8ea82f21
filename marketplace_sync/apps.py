"""The Django app."""

from django.apps import AppConfig
from django.conf import settings


class MarketplaceSyncConfig(AppConfig):
    default_auto_field = "django.db.models.BigAutoField"
    name = "marketplace_sync"
    verbose_name = "Marketplace mirror"

    def ready(self) -> None:
        # Importing a module of checks registers them.
        from marketplace_sync import checks, database_checks, logs, project_checks, redaction  # noqa: F401

        redaction.install()
        logs.use_logging()
        redaction.protect(getattr(settings, "ATOM_SAAS_API_TOKEN", None) or "")
