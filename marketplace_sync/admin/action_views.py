"""Turn a button into an action of `governance`, and the result into a page. Nothing is decided here.

Each button unfolds a small form in place (`<details>`, so it works without scripts). The form asks for a reason and
posts to the action's URL. A GET of that URL shows the same form as a confirmation page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextareaWidget  # type: ignore[import-untyped]

from marketplace_sync import client_address
from marketplace_sync.admin.base import ReadOnlyAdmin
from marketplace_sync.governance.actions import MAX_REASON_CHARS, Action, may
from marketplace_sync.governance.actors import actor_of
from marketplace_sync.governance.errors import (
    DeniedError,
    InvalidInputError,
    NoSuchTargetError,
    NotPossibleError,
    TooManyRequestsError,
)
from marketplace_sync.visible import visible

ActionClass = type[Action[Any]]


class ReasonForm(forms.Form):
    """The form of every action. The browser requires a reason; the action itself validates it."""

    reason = forms.CharField(
        max_length=MAX_REASON_CHARS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "placeholder": "Why? The audit log keeps the reason."}),
    )


@dataclass(frozen=True, slots=True)
class ActionButton:
    """A button and its form.

    `explanation` is one sentence about the effect. `hidden` are values that the form sends along. `blocked` is the
    reason why the button is disabled now; "" while it is not.
    """

    label: str
    url: str
    form: forms.Form
    explanation: str
    danger: bool = False
    hidden: Sequence[tuple[str, str]] = ()
    blocked: str = ""


def action_button(
    request: HttpRequest,
    action: ActionClass,
    url: str,
    explanation: str,
    *,
    form: type[forms.Form] = ReasonForm,
    danger: bool = False,
    initial: Mapping[str, Any] | None = None,
    hidden: Sequence[tuple[str, str]] = (),
    label: str = "",
) -> list[ActionButton]:
    """Return the button of an action; an empty list if the policy would deny the action to this visitor."""
    if not may(actor_of(request.user), action):
        return []
    # A page has several forms with the same fields. Each form has its own URL, which makes their ids unique.
    auto_id = f"{url.strip('/').replace('/', '-')}-%s"
    bound = form(initial=dict(initial or {}), auto_id=auto_id)
    return [ActionButton(label or str(action.label), url, bound, explanation, danger, hidden)]


def request_origin(request: HttpRequest) -> str:
    """Return the origin of a request as the audit log records it: the admin and the client's address."""
    return f"admin {client_address.of_request(request) or 'unknown'}"


def perform_action(request: HttpRequest, action: ActionClass, *target: Any, **arguments: Any) -> Any:
    """Perform an action as the logged-in person and return its result.

    Raises what `Action.perform` raises, and `PermissionDenied` for an account that is no actor.
    """
    actor = actor_of(request.user)
    if actor is None:
        raise PermissionDenied("This account may not act on the mirror.")
    reason = request.POST.get("reason", "")
    return action(*target, actor=actor, reason=reason, origin=request_origin(request), **arguments).perform()


def action_response(
    page: ReadOnlyAdmin,
    request: HttpRequest,
    button: Callable[[], list[ActionButton]],
    perform: Callable[[], Any],
    done: Callable[[Any], HttpResponse],
    back: str,
) -> HttpResponse:
    """Answer a request to an action's URL: GET shows the confirmation page, POST performs the action.

    `done` makes the response from the action's result. Denied: 403 with the reason; over a rate limit: 429. Not
    possible: a redirect to `back` with the reason as a message. Unknown target: 404. Invalid input: the form again,
    with 400.
    """
    if request.method in ("GET", "HEAD"):
        buttons = button()
        if not buttons:
            raise PermissionDenied
        return confirmation_page(page, request, buttons[0], back)
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    try:
        result = perform()
    except (DeniedError, TooManyRequestsError) as error:
        return refusal_page(page, request, error)
    except NoSuchTargetError as error:
        raise Http404(error.detail) from None
    except NotPossibleError as error:
        messages.error(request, visible(error.detail))
        return HttpResponseRedirect(back)
    except InvalidInputError as error:
        buttons = button()
        if not buttons:
            raise PermissionDenied from None
        form = type(buttons[0].form)(request.POST)
        form.is_valid()
        form.add_error(error.field if error.field in form.fields else None, error.detail)
        return confirmation_page(page, request, replace(buttons[0], form=form), back, status=400)
    return done(result)


def confirmation_page(
    page: ReadOnlyAdmin, request: HttpRequest, button: ActionButton, back: str, status: int = 200
) -> HttpResponse:
    """Return the page that asks for a reason before an action; "Cancel" leads to `back`."""
    context = page.page_context(request, button.label, button=button, back=back)
    return TemplateResponse(request, "admin/marketplace_sync/confirmation.html", context, status=status)


def refusal_page(page: ReadOnlyAdmin, request: HttpRequest, error: DeniedError | TooManyRequestsError) -> HttpResponse:
    """Answer 403 with the reason, or 429 with the time to wait."""
    limited = isinstance(error, TooManyRequestsError)
    title = "Too many requests" if limited else "Not allowed"
    context = page.page_context(request, title, detail=error.detail, limited=limited)
    status = 429 if limited else 403
    response = TemplateResponse(request, "admin/marketplace_sync/action_refused.html", context, status=status)
    if isinstance(error, TooManyRequestsError):
        response["Retry-After"] = str(ceil(error.retry_after))
    return response
