"""Restrict what the URL of a list may ask of the database.

Django's lists accept every lookup of every field in the URL. With `?code__regex=(a%2B)%2B$` any account that could see
the list kept a web process busy for minutes. These lists accept only their own filters, search, ordering and pages.
Anything else is refused with a message or a 400, never with a 500.
"""

from typing import Any

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from unfold.views import ChangeList  # type: ignore[import-untyped]

from marketplace_sync.visible import visible

# Each word of a search adds one condition per field; SQLite refuses expressions of more than 1,000.
MAX_SEARCH_CHARS = 200
MAX_SEARCH_WORDS = 8
# The part of an unknown parameter's name that the message quotes.
_MAX_NAME_CHARS = 60


class RestrictedChangeList(ChangeList):  # type: ignore[misc]
    """A list that accepts only its own filters, and counts its rows once.

    The total is shown only where no filter or search is active.
    """

    def get_filters(self, request: HttpRequest) -> tuple[Any, ...]:
        """Raise `IncorrectLookupParameters` if the URL has a lookup that no filter of this list accepts."""
        found: tuple[Any, ...] = super().get_filters(request)
        unknown = found[2]
        if unknown:
            name = visible(next(iter(unknown))[:_MAX_NAME_CHARS])
            messages.warning(request, f"This list has no filter {name}. All rows are shown.")
            raise IncorrectLookupParameters(name)
        return found

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class RestrictedListMixin:
    """A mixin for a `ModelAdmin`. A subclass overrides `search` instead of `get_search_results`."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RestrictedChangeList]:
        return RestrictedChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Return the list. Raises `BadRequest` for a value that the database cannot compare with."""
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            # PostgreSQL accepts no text with a NUL.
            raise BadRequest("A value in the address contains a NUL character. Remove it.")
        try:
            response: HttpResponse = super().changelist_view(request, extra_context)  # type: ignore[misc]
        except (DataError, OverflowError):
            # For example a time before the year 1 in UTC, or with an offset that one of the databases refuses.
            raise BadRequest("The database does not accept a value in the address. Correct or remove it.") from None
        return response

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # For `_to_field=` Django would look for a field with an empty name.
        return super().get_object(request, object_id, from_field or None)  # type: ignore[misc]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Search within the limits, for the list and for Django's autocompletion. Raises `BadRequest`."""
        if "\0" in search_term:
            raise BadRequest("The search contains a NUL character. Remove it.")
        if len(search_term) > MAX_SEARCH_CHARS:
            raise BadRequest(f"A search may have at most {MAX_SEARCH_CHARS} characters. Shorten it.")
        if len(search_term.split()) > MAX_SEARCH_WORDS:
            raise BadRequest(f"A search may have at most {MAX_SEARCH_WORDS} words. Shorten it.")
        return self.search(request, queryset, search_term)

    def search(self, request: HttpRequest, rows: Any, text: str) -> tuple[Any, bool]:
        """Return the rows that match `text`, and whether a row may appear twice."""
        found: tuple[Any, bool] = super().get_search_results(request, rows, text)  # type: ignore[misc]
        return found
