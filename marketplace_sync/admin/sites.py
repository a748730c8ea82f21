"""The admin site that a page stands on. A project may have one of its own, and may have several.

Django resolves `admin:...` to the site named "admin" unless it knows the current one, so the page's views note it.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

from django import urls
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.admin.sites import all_sites
from django.db.models import Model
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from unfold.sites import UnfoldAdminSite  # type: ignore[import-untyped]

from marketplace_sync.admin.plain import render_with_unfold

_current: ContextVar[str | None] = ContextVar("admin_site", default=None)


def site_of(request: HttpRequest) -> AdminSite:
    """Return the admin site that this request is for; outside of all of them, Django's default."""
    match = request.resolver_match
    names = match.namespaces if match is not None else []
    site = next((each for each in all_sites if each.name in names), None)
    return site or admin.site


def enter_site(request: HttpRequest) -> None:
    """Have `reverse` lead to the site of this request until another request is entered."""
    _current.set(site_of(request).name)


def reverse(name: str, args: Sequence[Any] = ()) -> str:
    """Return the address of an admin page on the current site."""
    return urls.reverse(name, args=args, current_app=_current.get())


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Return whether the site has pages of that model and the visitor may see them."""
    page = site_of(request)._registry.get(model)
    return page is not None and page.has_view_permission(request)


def on_site(pattern: urls.URLPattern) -> urls.URLPattern:
    """Return the address of a page of the mirror, whose view knows its site and opens its own transactions.

    In a transaction around the request (`ATOMIC_REQUESTS`) the audit row of a refusal would be rolled back.
    """
    view = pattern.callback

    @wraps(view)
    def entered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        enter_site(request)
        response: HttpResponse = view(request, *args, **kwargs)
        if not isinstance(site_of(request), UnfoldAdminSite):
            render_with_unfold(response)
        return response

    pattern.callback = non_atomic_requests(entered)
    return pattern


def register(site: AdminSite) -> None:
    """Give another admin site the pages of the mirror, with links that stay on it."""
    for model, page in admin.site._registry.items():
        if model._meta.app_label == "marketplace_sync":
            site.register(model, type(page))
