"""The answers to requests that failed: Django's `handler400` to `handler500`, and its `CSRF_FAILURE_VIEW`.

JSON under `/api/`, a page elsewhere. A page needs no database, no session, no login and no static file,
because each of these may be what failed.
"""

import base64
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from marketplace_sync.unavailable import Unavailable, reason_of, report

TEMPLATE = "marketplace_sync/error.html"
# Inline, so that the page is readable when static files are missing.
_STYLE = SafeString((Path(__file__).parents[1] / "templates/marketplace_sync/error.css").read_text(encoding="utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; script-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# A reason comes from an exception and may quote the request.
MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Link:
    """A link on an error page."""

    label: str
    url: str


def is_api(request: HttpRequest) -> bool:
    """Return whether the client is a program that expects JSON."""
    return request.path_info.startswith("/api/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400: the request cannot be read."""
    if is_api(request):
        detail = "The request cannot be read: its host, its parameters or its body are invalid."
        return _json({"detail": detail, "code": "bad_request"}, 400)
    reason = "Its address, its parameters or its body are invalid."
    advice = "Check the address, or go back and try again."
    if isinstance(exception, DisallowedHost):
        reason = "This site does not answer to the host name in the address."
        advice = "Use the site's own name. The operator of the site can add a name to DJANGO_ALLOWED_HOSTS."
    elif isinstance(exception, BadRequest):
        reason = _message(exception) or reason
    return page(request, 400, "The request cannot be read", reason, advice, _links(request))


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403: the account may not do this."""
    reason = _message(exception) if isinstance(exception, PermissionDenied) else ""
    if is_api(request):
        return _json({"detail": reason or "Not allowed.", "code": "permission_denied"}, 403)
    advice = "A superuser can give the permission to the account. Or log in with another account."
    ways = [*_links(request), *_login_link(request)]
    return page(request, 403, "Not allowed", reason or "This account may not see or do this.", advice, ways)


def form_refused(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer 403 to a form without a valid CSRF token; Django's `CSRF_FAILURE_VIEW`."""
    if is_api(request):
        return _json({"detail": f"CSRF failed: {reason}", "code": "permission_denied"}, 403)
    why = f"The check against forged forms failed: {reason.rstrip('.')}. Nothing was changed."
    advice = (
        "Reload the page with the form and send it again. Either the form was too old, or you logged in or out "
        "meanwhile. The browser must accept cookies from this site."
    )
    return page(request, 403, "The form was not accepted", why, advice, [*_links(request), *_login_link(request)])


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404: no page, or no row, has this address."""
    if is_api(request):
        detail = "There is no such path. See /api/docs/."
        return _json({"detail": detail, "code": "not_found"}, 404)
    # The argument of the subclass that Django's resolver raises is not a text.
    reason = _message(exception) if type(exception) is Http404 else ""
    advice = "The page may have been deleted, or the address is misspelt."
    return page(request, 404, "There is no such page", reason or "No page has this address.", advice, _links(request))


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, or 503 when the database is the cause. The traceback is only in the log."""
    error = sys.exc_info()[1]
    reason = reason_of(error) if error is not None else None
    if reason is not None:
        return unavailable(request, reason, error)
    if is_api(request):
        return _json({"detail": "The server failed. Its log has the cause.", "code": "server_error"}, 500)
    now = datetime.now(UTC)
    advice = f"Try again. If it fails again, the operator finds the cause in the log of {now:%Y-%m-%d %H:%M:%S}Z."
    ways = [*_retry_link(request), *_links(request)]
    return page(request, 500, "The server failed", "This is an error of the site, not of your request.", advice, ways)


def unavailable(request: HttpRequest, reason: Unavailable, error: BaseException | None) -> HttpResponse:
    """Answer 503 with `Retry-After`, and log it in one line."""
    report(reason, request.path, error)
    answer: HttpResponse
    if is_api(request):
        answer = _json({"detail": f"{reason.detail} {reason.advice}", "code": reason.code}, 503)
    else:
        ways = [*_retry_link(request), *_links(request)]
        answer = page(request, 503, reason.title, reason.detail, reason.advice, ways)
    answer["Retry-After"] = str(reason.retry_after)
    answer._has_been_logged = True  # type: ignore[attr-defined]  # otherwise Django logs an ERROR line with a traceback
    return answer


def page(
    request: HttpRequest, status: int, title: str, reason: str, advice: str, ways: Sequence[Link] = ()
) -> HttpResponse:
    """Return an error page, in the admin's colours."""
    context: dict[str, Any] = {
        "status": status,
        "title": title,
        "reason": reason,
        "advice": advice,
        "ways": ways,
        "home": get_script_prefix(),
        "site": getattr(settings, "UNFOLD", {}).get("SITE_TITLE") or "Marketplace mirror",
        "style": _STYLE,
        "theme": _static("marketplace_sync/theme.js"),
        "icon": _static("marketplace_sync/icon.svg"),
    }
    answer = HttpResponse(render_to_string(TEMPLATE, context), status=status)
    answer["Content-Security-Policy"] = POLICY
    answer["Cache-Control"] = "no-store"
    return answer


def _json(data: dict[str, str], status: int) -> HttpResponse:
    """Return an error of the API that no cache may store."""
    answer = JsonResponse(data, status=status, headers={"Cache-Control": "private, no-store"})
    patch_vary_headers(answer, ("Authorization", "Cookie"))
    return answer


def _message(exception: Exception) -> str:
    """Return the message that our own code gave, cut to a length that a page can show."""
    text = str(exception.args[0]) if exception.args and isinstance(exception.args[0], str) else ""
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}…"


def _retry_link(request: HttpRequest) -> list[Link]:
    return [Link("Try again", request.get_full_path())] if request.method == "GET" else []


def _links(request: HttpRequest) -> list[Link]:
    """Return links to the list that a detail page belongs to, and to the overview."""
    match = request.resolver_match
    name = match.view_name if match is not None else ""
    found = []
    model, _, kind = name.rpartition("_")
    if kind and kind != "changelist" and model.startswith("admin:") and (url := _url(f"{model}_changelist")):
        found.append(Link("Back to the list", url))
    if url := _url("admin:index"):
        found.append(Link("Overview", url))
    return found


def _login_link(request: HttpRequest) -> list[Link]:
    url = _url("admin:login")
    return [Link("Log in", f"{url}?{urlencode({'next': request.path})}")] if url else []


def _url(name: str) -> str:
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""


def _static(name: str) -> str:
    try:
        return static(name)
    except ValueError:  # the manifest of static files does not contain it
        return ""
