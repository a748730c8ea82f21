"""Filters that are typed in, not chosen: tags, keys and names are too many for a list. They work without scripts."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

Narrow = Callable[[QuerySet[Any], str], QuerySet[Any]]


class TypedFilter(SimpleListFilter):
    """A text field among the filters. Subclasses name `parameter_name` and `title`, and narrow the rows."""

    template = "admin/marketplace_sync/typed_filter.html"
    hint = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def has_output(self) -> bool:
        return True

    @abstractmethod
    def narrow(self, rows: QuerySet[Any], value: str) -> QuerySet[Any]:
        """The rows that this value means."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = (self.value() or "").strip()
        if not value:
            return queryset
        # No row has it, and PostgreSQL refuses to look.
        return queryset.none() if "\0" in value else self.narrow(queryset, value)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        others = {
            name: values
            for name, values in changelist.filter_params.items()
            if name not in (self.parameter_name, PAGE_VAR)
        }
        yield {
            "name": self.parameter_name,
            "value": self.value() or "",
            "hint": self.hint,
            "others": [(name, value) for name, values in others.items() for value in values],
            "selected": False,
            "clear": changelist.get_query_string(remove=[str(self.parameter_name)]),
        }


def typed(name: str, label: str, narrow: Narrow, *, hint: str = "") -> type[TypedFilter]:
    """A `TypedFilter` for the parameter `name`."""

    class Typed(TypedFilter):
        title = label
        parameter_name = name

        def narrow(self, rows: QuerySet[Any], value: str) -> QuerySet[Any]:
            return narrow(rows, value)

    Typed.hint = hint
    return Typed


def number(value: str) -> int:
    """A row's number as typed; -1, which none has, for what is none."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else -1
