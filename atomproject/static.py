"""Static files under ASGI, and under whatever path the site is served."""

from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import get_script_prefix
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]
    """WhiteNoise, answering with whole bodies.

    It streams files by a synchronous iterator, which Django under ASGI reads into a list anyway and
    warns about for each file. The largest of ours has a few hundred kilobytes.
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
    """Gives addresses below the path that the site is served under (`--root-path`).

    Django reads that path once, with `STATIC_URL`, which may be before the first request brings it.
    """

    def url(self, name: str | None) -> str:
        address = super().url(name)
        prefix = get_script_prefix()
        return address if address.startswith(prefix) else prefix + address.removeprefix("/")
