"""One format for all errors: `{"detail", "code"}`, with `field` and `fields` if a value is invalid."""

from math import ceil
from typing import Any

from django.conf import settings
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler, set_rollback

from marketplace_sync.governance.errors import (
    ActionError,
    DeniedError,
    InvalidInputError,
    MaturityRequiredError,
    NoSuchTargetError,
    NotPossibleError,
    TooManyRequestsError,
)
from marketplace_sync.unavailable import reason_of, report


class Gone(exceptions.APIException):
    """The requested data was once there but is no longer kept: 410."""

    status_code = status.HTTP_410_GONE
    default_detail = "No longer kept."
    default_code = "gone"


class TooLarge(exceptions.APIException):
    """The body is larger than any valid request needs: 413."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"The body must be at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."
    default_code = "too_large"


_STATUS: tuple[tuple[type[ActionError], int], ...] = (
    (DeniedError, status.HTTP_403_FORBIDDEN),
    (NotPossibleError, status.HTTP_409_CONFLICT),
    (NoSuchTargetError, status.HTTP_404_NOT_FOUND),
    (InvalidInputError, status.HTTP_400_BAD_REQUEST),
    (TooManyRequestsError, status.HTTP_429_TOO_MANY_REQUESTS),
)


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Answer an exception; DRF's `EXCEPTION_HANDLER`. Return `None` for a bug of ours, which becomes a 500."""
    if isinstance(error, ActionError):
        return _answer_action(error)
    reason = reason_of(error)
    if reason is not None:
        set_rollback()
        report(reason, context["request"].path, error)
        data = {"detail": f"{reason.detail} {reason.advice}", "code": reason.code}
        answer = Response(data, status=503, headers={"Retry-After": str(reason.retry_after)})
        answer._has_been_logged = True  # type: ignore[attr-defined]  # otherwise Django logs an ERROR line
        return answer
    response = exception_handler(error, context)
    if response is None:
        return None
    # DRF has converted Django's Http404 and PermissionDenied to its own exceptions.
    if isinstance(error, exceptions.ValidationError):
        fields = _fields(error.detail)
        field, problems = next(iter(fields.items()))
        response.data = {"detail": f"{field}: {problems[0]}", "code": "invalid", "field": field, "fields": fields}
    else:
        detail = response.data["detail"]
        response.data = {"detail": str(detail), "code": getattr(detail, "code", None) or "error"}
    return response


def _answer_action(error: ActionError) -> Response | None:
    for kind, code in _STATUS:
        if isinstance(error, kind):
            data: dict[str, Any] = {"detail": error.detail, "code": error.code}
            if isinstance(error, MaturityRequiredError):
                data |= {"required": str(error.required), "actual": str(error.actual) if error.actual else None}
            if isinstance(error, InvalidInputError):
                data |= {"field": error.field, "fields": {error.field: [error.detail]}}
            wait = {"Retry-After": str(ceil(error.retry_after))} if isinstance(error, TooManyRequestsError) else None
            return Response(data, status=code, headers=wait)
    return None


def _fields(detail: Any) -> dict[str, list[str]]:
    """Return the problems by field; those of no field are listed under `body`."""
    if not isinstance(detail, dict):
        return {"body": [str(problem) for problem in detail]}
    return {
        "body" if name == "non_field_errors" else name: [
            str(problem) for problem in (problems if isinstance(problems, list) else [problems])
        ]
        for name, problems in detail.items()
    }
