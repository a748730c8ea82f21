"""What every view has in common."""

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
from marketplace_sync.api.pagination import Pages

PAGE_PARAMETERS = (Pages.page_query_param, Pages.page_size_query_param, CURSOR)


class KnownParameters(JSONView):
    """Refuses parameters that the view does not know, rather than leaving a misspelt filter without effect.

    `parameters`: names by the viewset's action; an action that is not there takes none.
    """

    parameters: ClassVar[dict[str, tuple[str, ...]]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        known = self.known_parameters()
        for name, values in request.query_params.lists():
            if name not in known:
                takes = f"Known here: {', '.join(known)}." if known else "None is known here."
                raise ValidationError({name: [f"Unknown parameter. {takes}"]})
            if len(values) > 1:
                raise ValidationError({name: ["Given more than once."]})

    def known_parameters(self) -> tuple[str, ...]:
        action = getattr(self, "action", None) or ""
        own = self.parameters.get(action, ())
        filters = getattr(self, "filterset_class", None)
        if action == "list" and filters is not None:
            return (*filters.base_filters, *PAGE_PARAMETERS, *own)
        return own


def read_body(request: Request, *known: str) -> dict[str, Any]:
    """Return the optional body, an object with `reason` and these fields; its `reason` is a text, "" without one.

    Read here, for DRF takes a body without a `Content-Length` (chunked) for none. Raises `UnsupportedMediaType`
    for what is not JSON, `TooLarge`, `ParseError` for broken JSON, `ValidationError` for another shape.
    """
    try:
        body = request._request.body
    except RequestDataTooBig:
        raise TooLarge from None
    except RawPostDataException:  # a form with files, which is read already
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
        raise ValidationError({"body": ['An object, such as {"reason": "..."}.']})
    for name in data:
        if any("\ud800" <= char <= "\udfff" for char in name):  # the answer could not be written with such a name
            raise ParseError("The body has a field whose name holds half of a surrogate pair.")
        if name not in ("reason", *known):
            raise ValidationError({name: [f"Unknown field. Known: {', '.join((*known, 'reason'))}."]})
    if not isinstance(data.setdefault("reason", ""), str):
        raise ValidationError({"reason": ["A text."]})
    return data


@extend_schema(exclude=True)
class NoSuchPath(KnownParameters):
    """What is asked for under `/api/` and is not there, whichever way."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        APIView.initial(self, request, *args, **kwargs)
        raise NotFound("There is no such path; see /api/docs/.")

    def get(self, request: Request, **kwargs: Any) -> Response:
        raise NotFound

    post = put = patch = delete = get
