"""Paginate tables that grow without bound, without counting all of their rows."""

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator

# 400 pages. Filters reach the rows behind them.
MAX_COUNTED = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Count at most `MAX_COUNTED` rows. `has_more` is true if there are more."""

    template_name = "admin/marketplace_sync/pagination.html"

    @cached_property
    def count(self) -> int:
        return min(self._found, MAX_COUNTED)

    @property
    def has_more(self) -> bool:
        return self._found > MAX_COUNTED

    @cached_property
    def _found(self) -> int:
        rows: Any = self.object_list
        found: int = rows.order_by()[: MAX_COUNTED + 1].count()
        return found
