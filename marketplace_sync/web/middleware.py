"""Answer exceptions of views that Django would answer with 500: 503 for database errors, 404 for missing pages."""

from django.conf import settings
from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from marketplace_sync.unavailable import reason_of
from marketplace_sync.web.errors import not_found, unavailable


class FailedRequestMiddleware(MiddlewareMixin):
    """Answer a database error with 503 and `Retry-After`: a page, or JSON under `/api/`.

    A page number that a list does not have is 404, because not every view of the packages catches it. Errors that
    another middleware raises reach `errors.server_error`, which gives the same answers.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, InvalidPage):
            return not_found(request, Http404("There is no such page of results."))
        reason = None if settings.DEBUG else reason_of(exception)  # a developer wants the debug page
        return None if reason is None else unavailable(request, reason, exception)
