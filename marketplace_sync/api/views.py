"""The base class of all views, and the parsing of request bodies."""

import json
from typing import Any, ClassVar

from django.core.exceptions import RequestDataTooBig
from django.http import RawPostDataException
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import NotFound, ParseError, UnsupportedMediaType, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace_sync.api.cursor import CURSOR
from marketplace_sync.api.defaults import JSONView
from marketplace_sync.api.errors import TooLarge
from marketplace_sync.api.pagination import Pagination

PAGE_PARAMETERS = (Pagination.page_query_param, Pagination.page_size_query_param, CURSOR)


class StrictView(JSONView):
    """Refuse unknown parameters, because a misspelt filter that is ignored would go unnoticed.

    `parameters`: the names by the viewset's action; an action without an entry takes none.
    """

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        known = self.known_parameters()
        for name, values in request.query_params.lists():
            if name not in known:
                allowed = f"Known: {', '.join(known)}." if known else "There are none here."
                raise ValidationError({name: [f"Unknown parameter. {allowed}"]})
            if len(values) > 1:
                raise ValidationError({name: ["Must not be repeated."]})

    def known_parameters(self) -> tuple[str, ...]:
        action = getattr(self, "action", None) or ""
        own = self.parameters.get(action, ())
        filters = getattr(self, "filterset_class", None)
        if action == "list" and filters is not None:
            return (*filters.base_filters, *PAGE_PARAMETERS, *own)
        return own


def read_body(request: Request, *known: str) -> dict[str, Any]:
    """Return the optional body: an object with `reason`, a text ("" if absent), and these fields.

    It is read here because DRF ignores a body without a `Content-Length` (chunked). Raise `UnsupportedMediaType` if
    it is not JSON, `TooLarge`, `ParseError` for broken JSON, and `ValidationError` for another structure.
    """
    try:
        body = request._request.body
    except RequestDataTooBig:
        raise TooLarge from None
    except RawPostDataException:  # a form with files, which has been read already
        raise UnsupportedMediaType(request.content_type) from None
    if not body:
        return {"reason": ""}
    if request.content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(request.content_type)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise ParseError("The body is not JSON.") from None
    if not isinstance(data, dict):
        raise ValidationError({"body": ['Must be an object, such as {"reason": "..."}.']})
    for name in data:
        if any("\ud800" <= char <= "\udfff" for char in name):  # an answer with such a name could not be encoded
            raise ParseError("The name of a field contains half of a surrogate pair.")
        if name not in ("reason", *known):
            raise ValidationError({name: [f"Unknown field. Known: {', '.join((*known, 'reason'))}."]})
    if not isinstance(data.setdefault("reason", ""), str):
        raise ValidationError({"reason": ["Must be a text."]})
    return data


@extend_schema(exclude=True)
class UnknownPath(StrictView):
    """Answer 404 for any unknown path under `/api/`, whatever the method."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        APIView.initial(self, request, *args, **kwargs)
        raise NotFound("There is no such path. See /api/docs/.")

    def get(self, request: Request, **kwargs: Any) -> Response:
        raise NotFound

    post = put = patch = delete = get
