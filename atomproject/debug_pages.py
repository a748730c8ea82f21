"""Django's debug pages without secrets: `DJANGO_DEBUG` shows every local variable and setting to whoever asks."""

from typing import Any

from django.views.debug import ExceptionReporter

from marketplace_sync.redaction import redact_value


class SafeExceptionReporter(ExceptionReporter):
    """Django hides settings by their names (TOKEN, KEY, PASS …); this hides what is secret wherever it stands.

    That is what `redaction.protect` was told, and the shapes that it knows: keys of agents, logins in URLs.
    """

    def get_traceback_data(self) -> dict[str, Any]:
        data = super().get_traceback_data()
        for name in ("request_GET_items", "request_FILES_items", "request_COOKIES_items"):
            if name in data:
                data[name] = list(data[name])
        return {name: value if name == "request" else redact_value(value) for name, value in data.items()}
