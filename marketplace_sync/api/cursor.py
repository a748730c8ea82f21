"""Pages by `cursor`: a whole list, read while it changes.

A page number counts rows from the beginning of the list. Rows that appear or disappear before that place move it, so
the next page skips or repeats rows. A cursor is the primary key of the last row read instead: it is set once and stays
while the row exists, so no change moves it. A row that exists (and matches) while all pages are read is read once.
"""

from typing import Any

from django.core.signing import BadSignature, Signer
from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

CURSOR = "cursor"
# Both belong to another order than the cursor's.
_EXCLUDED = ("page", "ordering")
# These may change from page to page, because they do not select rows.
_FREE = (CURSOR, "page_size")

_FOREIGN_CURSOR = (
    "This cursor does not belong to this list with these filters. Send `next` unchanged, with the same filters, "
    "or begin again with an empty cursor."
)


class Cursor:
    """The place of a request in a list. Raises `ValidationError` for a cursor of another list."""

    def __init__(self, request: Request, rows: QuerySet[Any]) -> None:
        for name in _EXCLUDED:
            if name in request.query_params:
                raise ValidationError({CURSOR: [f"A cursor has its own order: leave out `{name}`."]})
        self._request = request
        # Signed for this list and these filters: with others, a cursor would silently skip rows.
        chosen = sorted((name, values) for name, values in request.query_params.lists() if name not in _FREE)
        self._signer = Signer(salt=f"{rows.model._meta.label} {chosen}", sep=".")
        self._rows = rows.order_by("pk")
        if text := request.query_params[CURSOR]:
            self._rows = self._rows.filter(pk__gt=self._read(text))

    def keys(self, size: int) -> tuple[list[Any], str | None]:
        """Return the primary keys of the next `size` rows, and the URL of the page after them if there is one."""
        keys = list(self._rows.select_related(None).values_list("pk", flat=True)[: size + 1])
        if len(keys) <= size:
            return keys, None
        after = self._signer.sign_object(keys[size - 1])
        return keys[:size], replace_query_param(self._request.build_absolute_uri(), CURSOR, after)

    def _read(self, text: str) -> Any:
        try:
            return self._signer.unsign_object(text)
        except BadSignature:
            raise ValidationError({CURSOR: [_FOREIGN_CURSOR]}) from None
