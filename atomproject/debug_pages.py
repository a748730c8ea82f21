"""Remove secrets from Django's debug pages: with `DJANGO_DEBUG` they show all local variables and settings."""

from typing import Any

from django.views.debug import ExceptionReporter

from marketplace_sync.redaction import redact_value


class SafeExceptionReporter(ExceptionReporter):
    """Redact secret values everywhere. Django itself only hides settings by their names (TOKEN, KEY, PASS …).

    Secret are the values registered by `redaction.protect`, and the known forms: keys of agents, credentials in URLs.
    """

    def get_traceback_data(self) -> dict[str, Any]:
        data = super().get_traceback_data()
        for name in ("request_GET_items", "request_FILES_items", "request_COOKIES_items"):
            if name in data:
                data[name] = list(data[name])
        return {name: value if name == "request" else redact_value(value) for name, value in data.items()}
