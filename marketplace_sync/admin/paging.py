"""Lists of tables that grow without end: never counted to their end for a page of 25."""

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator
from unfold.views import ChangeList  # type: ignore[import-untyped]

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


class MirrorList(ChangeList):  # type: ignore[misc]
    """A list that is counted once: the whole's count is told only where nothing narrows it."""

    def get_results(self, request: Any) -> None:
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count
