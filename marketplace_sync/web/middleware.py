"""Answer 503 when the database cannot serve a request for now."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from marketplace_sync.unavailable import reason_of
from marketplace_sync.web.errors import unavailable


class UnavailableMiddleware(MiddlewareMixin):
    """Turns what a view raises into 503 with `Retry-After`: a page, or JSON under `/api/`.

    Errors that another middleware raises reach `errors.server_error`, which answers the same.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        reason = None if settings.DEBUG else reason_of(exception)  # whoever develops wants the debug page
        return None if reason is None else unavailable(request, reason, exception)
