"""Additions to drf-spectacular's schema: authentication, and the errors that all operations share."""

from typing import Any

from django.urls import get_script_prefix
from drf_spectacular.authentication import SessionScheme
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from marketplace_sync.api.defaults import Guarded
from marketplace_sync.api.examples import ERRORS
from marketplace_sync.api.rendering import Renderer


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """An agent's key."""

    target_class = "marketplace_sync.api.authentication.BearerAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An agent's key; see `manage.py createagent`."}


class PersonScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """A person's session."""

    target_class = "marketplace_sync.api.authentication.PersonAuthentication"


class SchemaView(Guarded, SpectacularJSONAPIView):
    """OpenAPI 3, as JSON."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the schema, with the path that the site is served under as its server."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        if prefix := get_script_prefix().rstrip("/"):
            response.data["servers"] = [{"url": prefix}]
        return response


class DocsView(Guarded, SpectacularSwaggerSplitView):
    """The schema as a page to try out. Its scripts come from this server, so it works offline; none is inline."""

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        answered = super().finalize_response(request, response, *args, **kwargs)
        if answered.status_code >= 400:  # an error is answered as JSON
            answered.accepted_renderer = Renderer()
            answered.accepted_media_type = Renderer.media_type
            del answered.headers["Content-Type"]
        return answered


ERROR = {
    "type": "object",
    "description": "All errors. `field` and `fields` come with 400, `required` and `actual` with `maturity_required`.",
    "required": ["detail", "code"],
    "properties": {
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "field": {"type": "string"},
        "fields": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
        "required": {"type": "string"},
        "actual": {"type": "string", "nullable": True},
    },
}


def add_refusals(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Add the errors of each operation, with examples, and the limits of pages. A postprocessing hook."""
    result["components"]["schemas"]["Error"] = ERROR
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            for code in refusals(path, method, operation):
                operation["responses"].setdefault(code, _refusal(code))
            for parameter in operation.get("parameters", ()):
                _describe(parameter)
            operation["responses"] = dict(sorted(operation["responses"].items()))
    return result


def refusals(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    """Return the status codes with which this operation may refuse."""
    codes = ["400", "401", "403", "429"]
    if "{" in path or any(parameter["name"] == "page" for parameter in operation.get("parameters", ())):
        codes.append("404")
    if method == "post":
        codes += ["409", "413", "415"]
    if path.endswith("/changes/"):
        codes.append("410")
    return codes


def _refusal(code: str) -> dict[str, Any]:
    description, value = ERRORS[code]
    return {
        "description": description,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": {"example": {"value": value}},
            }
        },
    }


def _describe(parameter: dict[str, Any]) -> None:
    """Add the limits that DRF's pagination leaves out."""
    if parameter["name"] == "page":
        parameter["schema"] |= {"minimum": 1, "default": 1}
    elif parameter["name"] == "page_size":
        parameter["schema"] |= {"minimum": 1, "default": 50}
        parameter["description"] = "At most 500; larger values count as 500."
