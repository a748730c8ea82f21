"""Every refusal in one shape: `{"detail", "code"}`, with `field` and `fields` where a value is at fault."""

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
    """What was there once is no longer kept: 410."""

    status_code = status.HTTP_410_GONE
    default_detail = "No longer kept."
    default_code = "gone"


class TooLarge(exceptions.APIException):
    """A body that no honest request has: 413."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"A body has {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes at most."
    default_code = "too_large"


_STATUS: tuple[tuple[type[ActionError], int], ...] = (
    (DeniedError, status.HTTP_403_FORBIDDEN),
    (NotPossibleError, status.HTTP_409_CONFLICT),
    (NoSuchTargetError, status.HTTP_404_NOT_FOUND),
    (InvalidInputError, status.HTTP_400_BAD_REQUEST),
    (TooManyRequestsError, status.HTTP_429_TOO_MANY_REQUESTS),
)


def answer_error(fault: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's `EXCEPTION_HANDLER`; `None` for what is no refusal but a fault of ours, which is a 500."""
    if isinstance(fault, ActionError):
        return _of_action(fault)
    reason = reason_of(fault)
    if reason is not None:
        set_rollback()
        report(reason, context["request"].path, fault)
        data = {"detail": f"{reason.detail} {reason.advice}", "code": reason.code}
        answer = Response(data, status=503, headers={"Retry-After": str(reason.retry_after)})
        answer._has_been_logged = True  # type: ignore[attr-defined]  # else Django adds an ERROR line
        return answer
    response = exception_handler(fault, context)
    if response is None:
        return None
    # DRF turns Django's Http404 and PermissionDenied into its own before it answers.
    if isinstance(fault, exceptions.ValidationError):
        fields = _fields(fault.detail)
        field, problems = next(iter(fields.items()))
        response.data = {"detail": f"{field}: {problems[0]}", "code": "invalid", "field": field, "fields": fields}
    else:
        detail = response.data["detail"]
        response.data = {"detail": str(detail), "code": getattr(detail, "code", None) or "error"}
    return response


def _of_action(fault: ActionError) -> Response | None:
    for kind, code in _STATUS:
        if isinstance(fault, kind):
            data: dict[str, Any] = {"detail": fault.detail, "code": fault.code}
            if isinstance(fault, MaturityRequiredError):
                data |= {"required": str(fault.required), "actual": str(fault.actual) if fault.actual else None}
            if isinstance(fault, InvalidInputError):
                data |= {"field": fault.field, "fields": {fault.field: [fault.detail]}}
            wait = {"Retry-After": str(ceil(fault.retry_after))} if isinstance(fault, TooManyRequestsError) else None
            return Response(data, status=code, headers=wait)
    return None


def _fields(detail: Any) -> dict[str, list[str]]:
    """Each field's problems; what belongs to no field is the body's."""
    if not isinstance(detail, dict):
        return {"body": [str(problem) for problem in detail]}
    return {
        "body" if name == "non_field_errors" else name: [
            str(problem) for problem in (problems if isinstance(problems, list) else [problems])
        ]
        for name, problems in detail.items()
    }
