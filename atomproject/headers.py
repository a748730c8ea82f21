"""What every answer tells browsers: which scripts may run, who may frame a page, what a link gives away.

The policy is as strict as what stands on a path can live with; where it is looser, the reason stands beside.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

Policy = dict[str, str]

# Answers that are no page: should a browser take one for a page, nothing in it does anything.
NO_PAGE: Policy = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
PAGE: Policy = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    # Style sheets draw their arrows and ticks from data: addresses; pictures of other hosts are never loaded.
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# By the beginning of the path, the first that fits.
LOOSER: tuple[tuple[str, Policy], ...] = (
    (
        "/admin/",
        {
            # Unfold's pages are written for Alpine.js, whose expressions stand in attributes and are compiled by
            # `new Function`; htmx's conditions ("every 2s [!document.hidden]") likewise. No script may stand inline.
            "script-src": "'self' 'unsafe-eval'",
            # Unfold writes the theme's colours into a <style>, and htmx one for its indicators; both may vary, so
            # neither has a hash that lasts. Styles alone: they can't send what they see, for nothing foreign loads.
            "style-src": "'self' 'unsafe-inline'",
        },
    ),
    (
        "/api/docs/",
        # Swagger's page has a <style> of its own, and its scripts set style attributes in what they render.
        {"style-src": "'self' 'unsafe-inline'"},
    ),
)
PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "geolocation", "gyroscope", "hid",
        "magnetometer", "microphone", "midi", "payment", "publickey-credentials-get", "screen-wake-lock", "serial",
        "usb", "xr-spatial-tracking",
    )
)  # fmt: skip


@sync_and_async_middleware
def security_headers(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Sets Content-Security-Policy and Permissions-Policy, unless a view has set its own.

    The rest is Django's: `X-Content-Type-Options`, `Referrer-Policy`, `Cross-Origin-Opener-Policy`,
    `X-Frame-Options`, and HSTS where `DJANGO_HTTPS` is on.
    """
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> HttpResponseBase:
            return _with_headers(request, await get_response(request))

        return answer_async

    def answer(request: HttpRequest) -> HttpResponseBase:
        return _with_headers(request, get_response(request))

    return answer


def policy(request: HttpRequest, *, page: bool) -> str:
    """The Content-Security-Policy of an answer to `request`; `page`: it is HTML."""
    rules = NO_PAGE
    if page:
        looser = next((rules for prefix, rules in LOOSER if request.path_info.startswith(prefix)), {})
        rules = PAGE | looser | {"connect-src": f"'self'{_websockets(request)}"}
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def _websockets(request: HttpRequest) -> str:
    """This site's WebSockets, which 'self' does not cover in every browser."""
    try:
        return f" {'wss' if request.is_secure() else 'ws'}://{request.get_host()}"
    except DisallowedHost:  # the answer is a 400, and names no host
        return ""


def _with_headers(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not response.has_header("Content-Security-Policy"):
        page = response.get("Content-Type", "").startswith("text/html")
        response["Content-Security-Policy"] = policy(request, page=page)
    if not response.has_header("Permissions-Policy"):
        response["Permissions-Policy"] = PERMISSIONS
    return response
