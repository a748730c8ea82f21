"""List filters with a text field, for tags, keys and names: a list of choices would be too long. No script needed."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

RowFilter = Callable[[QuerySet[Any], str], QuerySet[Any]]


class TextFilter(SimpleListFilter):
    """A text field among the filters. A subclass sets `parameter_name` and `title`, and implements `filter_rows`."""

    template = "admin/marketplace_sync/text_filter.html"
    placeholder = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    @abstractmethod
    def filter_rows(self, rows: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that match the value."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = (self.value() or "").strip()
        if not value:
            return queryset
        # No stored text contains a NUL, and PostgreSQL refuses the query.
        return queryset.none() if "\0" in value else self.filter_rows(queryset, value)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        others = {
            name: values
            for name, values in changelist.filter_params.items()
            if name not in (self.parameter_name, PAGE_VAR)
        }
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "placeholder": self.placeholder,
            "others": [(name, value) for name, values in others.items() for value in values],
            "selected": False,
            "clear": changelist.get_query_string(remove=[str(self.parameter_name)]),
        }


def text_filter(name: str, label: str, filter_by: RowFilter, *, hint: str = "") -> type[TextFilter]:
    """Return a `TextFilter` for the parameter `name`; `hint` is its placeholder."""

    class _TextFilter(TextFilter):
        title = label
        parameter_name = name
        placeholder = hint

        def filter_rows(self, rows: QuerySet[Any], value: str) -> QuerySet[Any]:
            return filter_by(rows, value)

    return _TextFilter


def parse_id(value: str) -> int:
    """Return the row id in a text; -1, which no row has, for anything else."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else -1
