"""Set the security headers of every response: which scripts may run, who may frame a page, which features it may use.

Each path has the strictest policy that its pages work with; a looser policy has its reason beside it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

Policy = dict[str, str]

# For responses that are no page: if a browser shows one as a page, nothing in it can act.
NO_PAGE: Policy = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
PAGE: Policy = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self'",
    # Style sheets use data: URLs for arrows and ticks. Images of other hosts are never loaded.
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
# By prefix of the path; the first match counts.
LOOSER: tuple[tuple[str, Policy], ...] = (
    (
        "/admin/",
        {
            # Unfold uses Alpine.js, which compiles expressions in attributes by `new Function`; so does htmx with its
            # conditions ("every 2s [!document.hidden]"). Inline scripts remain forbidden.
            "script-src": "'self' 'unsafe-eval'",
            # Unfold writes the theme's colours into a <style>, and htmx its indicators; both may change, so hashes
            # would not last. Styles cannot send data elsewhere, because nothing loads from other hosts.
            "style-src": "'self' 'unsafe-inline'",
        },
    ),
    (
        "/api/docs/",
        # Swagger's page has its own <style>, and its scripts set style attributes.
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
    """Set Content-Security-Policy and Permissions-Policy, unless a view has set its own.

    Django sets the others: `X-Content-Type-Options`, `Referrer-Policy`, `Cross-Origin-Opener-Policy`,
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
    """Return the Content-Security-Policy of a response. `page`: it is HTML."""
    rules = NO_PAGE
    if page:
        looser = next((rules for prefix, rules in LOOSER if request.path_info.startswith(prefix)), {})
        rules = PAGE | looser | {"connect-src": f"'self'{_websockets(request)}"}
    return "; ".join(f"{name} {sources}" for name, sources in rules.items())


def _websockets(request: HttpRequest) -> str:
    """Return the source of this site's WebSockets, which 'self' does not cover in every browser."""
    try:
        return f" {'wss' if request.is_secure() else 'ws'}://{request.get_host()}"
    except DisallowedHost:  # the response is a 400 and names no host
        return ""


def _with_headers(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if not response.has_header("Content-Security-Policy"):
        page = response.get("Content-Type", "").startswith("text/html")
        response["Content-Security-Policy"] = policy(request, page=page)
    if not response.has_header("Permissions-Policy"):
        response["Permissions-Policy"] = PERMISSIONS
    return response
