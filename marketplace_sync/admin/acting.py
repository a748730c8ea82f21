"""From a button to an action of `governance`, and from its answer to a page. Nothing is decided here.

A button is a small form of its own, unfolded where it stands (`<details>`, so it needs no script), that asks for a
reason and posts to the action's address. A GET of that address shows the same form on a page.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

Kind = type[Action[Any]]


class ReasonForm(forms.Form):
    """What every action asks for. The browser insists on a reason; whether it will do is for the action to say."""

    reason = forms.CharField(
        max_length=MAX_REASON_CHARS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "placeholder": "Why? It is kept in the audit log."}),
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """A button and the form behind it. `explain`: what it does, in a sentence. `hidden`: values that go along."""

    label: str
    url: str
    form: forms.Form
    explain: str
    danger: bool = False
    hidden: Sequence[tuple[str, str]] = ()
    blocked: str = ""  # why it cannot be pressed now


def ask(
    request: HttpRequest,
    kind: Kind,
    url: str,
    explain: str,
    *,
    form: type[forms.Form] = ReasonForm,
    danger: bool = False,
    initial: Mapping[str, Any] | None = None,
    hidden: Sequence[tuple[str, str]] = (),
    label: str = "",
) -> list[Ask]:
    """The button, or none where the policy would refuse whoever asks; a list, for lists are what it goes into."""
    if not may(actor_of(request.user), kind):
        return []
    # Several forms stand on one page: their fields' ids are told apart by the address, which is each one's own.
    auto_id = f"{url.strip('/').replace('/', '-')}-%s"
    return [
        Ask(label or str(kind.label), url, form(initial=dict(initial or {}), auto_id=auto_id), explain, danger, hidden)
    ]


def origin_of(request: HttpRequest) -> str:
    """From where, as the audit says it."""
    return f"admin {client_address.of_request(request) or 'unknown'}"


def act(request: HttpRequest, kind: Kind, *target: Any, **arguments: Any) -> Any:
    """Perform `kind` for whoever is logged in; its result.

    Raises what `perform` raises, and `PermissionDenied` for an account that is no actor.
    """
    actor = actor_of(request.user)
    if actor is None:
        raise PermissionDenied("This account is no actor.")
    reason = request.POST.get("reason", "")
    return kind(*target, actor=actor, reason=reason, origin=origin_of(request), **arguments).perform()


def answer(
    page: ReadOnlyAdmin,
    request: HttpRequest,
    button: Callable[[], list[Ask]],
    perform: Callable[[], Any],
    done: Callable[[Any], HttpResponse],
    back: str,
) -> HttpResponse:
    """The view of an action: POST performs it, GET shows its form. `done` makes the answer from its result.

    Refused: 403 and a page that says why, 429 past a limit. Not possible: back, with the reason shown. No such
    target: 404. What can't be read: the form again, with 400.
    """
    if request.method in ("GET", "HEAD"):
        asked = button()
        if not asked:
            raise PermissionDenied
        return ask_page(page, request, asked[0], back)
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    try:
        result = perform()
    except (DeniedError, TooManyRequestsError) as denial:
        return refusal(page, request, denial)
    except NoSuchTargetError as fault:
        raise Http404(fault.detail) from None
    except NotPossibleError as fault:
        messages.error(request, visible(fault.detail))
        return HttpResponseRedirect(back)
    except InvalidInputError as fault:
        asked = button()
        if not asked:
            raise PermissionDenied from None
        form = type(asked[0].form)(request.POST)
        form.is_valid()
        form.add_error(fault.field if fault.field in form.fields else None, fault.detail)
        wrong = Ask(asked[0].label, asked[0].url, form, asked[0].explain, asked[0].danger, asked[0].hidden)
        return ask_page(page, request, wrong, back, status=400)
    return done(result)


def ask_page(page: ReadOnlyAdmin, request: HttpRequest, asked: Ask, back: str, status: int = 200) -> HttpResponse:
    """An action's form on a page of its own."""
    context = page.page_context(request, asked.label, ask=asked, back=back)
    return TemplateResponse(request, "admin/marketplace_sync/ask.html", context, status=status)


def refusal(page: ReadOnlyAdmin, request: HttpRequest, denial: DeniedError | TooManyRequestsError) -> HttpResponse:
    """Answer 403 and why, or 429 and when to try again."""
    limited = isinstance(denial, TooManyRequestsError)
    title = "Too many requests" if limited else "Not allowed"
    context = page.page_context(request, title, detail=denial.detail, limited=limited)
    response = TemplateResponse(request, "admin/marketplace_sync/refused.html", context, status=429 if limited else 403)
    if isinstance(denial, TooManyRequestsError):
        response["Retry-After"] = str(ceil(denial.retry_after))
    return response
