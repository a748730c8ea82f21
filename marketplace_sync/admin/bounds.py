"""Bounds on what the address of a list may ask of the database.

Django's lists accept every lookup of every field in the address: `?code__regex=(a%2B)%2B$` by any account that may see
the list kept a web process busy for minutes. Here a list accepts what it offers: its filters, its search, its ordering
and its pages. All else is refused, and nothing in an address is an error of ours.
"""

from typing import Any

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from unfold.views import ChangeList  # type: ignore[import-untyped]

from marketplace_sync.visible import visible

# Each word of a search is a condition for each field; SQLite refuses an expression of more than 1,000.
MAX_SEARCH_CHARS = 200
MAX_SEARCH_WORDS = 8
# Of an unknown parameter, in the message that it has no effect.
_NAME_CHARS = 60


class MirrorList(ChangeList):  # type: ignore[misc]
    """A list that accepts the filters that it offers, and is counted once.

    The whole's count is told only where nothing narrows it.
    """

    def get_filters(self, request: HttpRequest) -> tuple[Any, ...]:
        """Raise `IncorrectLookupParameters` where the address has a lookup that no filter of this list took."""
        found: tuple[Any, ...] = super().get_filters(request)
        unknown = found[2]
        if unknown:
            name = visible(next(iter(unknown))[:_NAME_CHARS])
            messages.warning(request, f"This list has no filter {name}. All rows are shown.")
            raise IncorrectLookupParameters(name)
        return found

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class BoundedList:
    """A mixin for a `ModelAdmin`. A subclass searches in `search`, not in `get_search_results`."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[MirrorList]:
        return MirrorList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Raise `BadRequest` for a value that no database can be asked for."""
        if any("\0" in value for values in request.GET.lists() for value in values[1]):
            # PostgreSQL refuses such a text when it is asked for it.
            raise BadRequest("NUL is in no value.")
        try:
            response: HttpResponse = super().changelist_view(request, extra_context)  # type: ignore[misc]
        except (DataError, OverflowError):
            # A time, say, with an offset that one database does not take, or before the year 1 in UTC.
            raise BadRequest("A value in the address is none that a database could be asked for.") from None
        return response

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # Django looks for a field of an empty name where the address has `_to_field=`.
        return super().get_object(request, object_id, from_field or None)  # type: ignore[misc]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Search within bounds, for the list and for Django's autocompletion. Raises `BadRequest`."""
        if "\0" in search_term:
            raise BadRequest("NUL is in no text.")
        if len(search_term) > MAX_SEARCH_CHARS:
            raise BadRequest(f"A search has at most {MAX_SEARCH_CHARS} characters.")
        if len(search_term.split()) > MAX_SEARCH_WORDS:
            raise BadRequest(f"A search has at most {MAX_SEARCH_WORDS} words.")
        return self.search(request, queryset, search_term)

    def search(self, request: HttpRequest, rows: Any, text: str) -> tuple[Any, bool]:
        """Return the rows that `text` finds, and whether one may come twice."""
        found: tuple[Any, bool] = super().get_search_results(request, rows, text)  # type: ignore[misc]
        return found
