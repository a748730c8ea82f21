"""Serve static files under ASGI, and under the path prefix of the site."""

from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import get_script_prefix
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]
    """WhiteNoise with whole bodies.

    WhiteNoise streams files by a synchronous iterator. Under ASGI Django reads it into a list anyway and logs a warning
    for each file. The largest file has a few hundred kilobytes.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponseBase:
        found = static_file.get_response(request.method, request.META)
        body = b""
        if found.file is not None:
            with found.file:
                body = found.file.read()
        response = HttpResponse(body, status=int(found.status))
        del response["Content-Type"]
        for name, value in found.headers:
            response[name] = value
        return response


class Storage(StaticFilesStorage):
    """Return URLs below the path prefix of the site (`--root-path`).

    Django reads the prefix once, with `STATIC_URL`, possibly before the first request sets it.
    """

    def url(self, name: str | None) -> str:
        address = super().url(name)
        prefix = get_script_prefix()
        return address if address.startswith(prefix) else prefix + address.removeprefix("/")
