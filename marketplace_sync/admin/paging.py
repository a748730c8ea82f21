"""Lists of tables that grow without end: never counted to their end for a page of 25."""

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator

# Counted, and to be paged through, at most: 400 pages. Filters lead further than paging does.
COUNTED_AT_MOST = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Counts up to `COUNTED_AT_MOST`; `has_more` says whether there is more than that."""

    template_name = "admin/marketplace_sync/pagination.html"

    @cached_property
    def count(self) -> int:
        return min(self._found, COUNTED_AT_MOST)

    @property
    def has_more(self) -> bool:
        return self._found > COUNTED_AT_MOST

    @cached_property
    def _found(self) -> int:
        rows: Any = self.object_list
        found: int = rows.order_by()[: COUNTED_AT_MOST + 1].count()
        return found
