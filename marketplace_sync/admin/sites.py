"""Find the admin site of a page. A project may use its own site, or several.

Django resolves `admin:...` to the site named "admin" unless it knows the current site. The views of the mirror's pages
therefore set it (`set_current_site`) before `reverse` is called.
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

from marketplace_sync.admin.site_adapter import render_with_unfold

_current: ContextVar[str | None] = ContextVar("admin_site", default=None)


def site_of(request: HttpRequest) -> AdminSite:
    """Return the admin site of a request; Django's default site for a URL outside of all sites."""
    match = request.resolver_match
    names = match.namespaces if match is not None else []
    site = next((each for each in all_sites if each.name in names), None)
    return site or admin.site


def set_current_site(request: HttpRequest) -> None:
    """Make `reverse` return URLs on the site of this request, until it is called for another request."""
    _current.set(site_of(request).name)


def reverse(name: str, args: Sequence[Any] = ()) -> str:
    """Return the URL of an admin page on the current site."""
    return urls.reverse(name, args=args, current_app=_current.get())


def may_view(request: HttpRequest, model: type[Model]) -> bool:
    """Return whether the site has pages of that model and the visitor may see them."""
    page = site_of(request)._registry.get(model)
    return page is not None and page.has_view_permission(request)


def site_page(pattern: urls.URLPattern) -> urls.URLPattern:
    """Wrap the view of a page: set its site, and open no transaction around the request.

    In a transaction around the request (`ATOMIC_REQUESTS`) the audit row of a denied action would be rolled back.
    """
    view = pattern.callback

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        set_current_site(request)
        response: HttpResponse = view(request, *args, **kwargs)
        if not isinstance(site_of(request), UnfoldAdminSite):
            render_with_unfold(response)
        return response

    pattern.callback = non_atomic_requests(wrapped)
    return pattern


def register(site: AdminSite) -> None:
    """Add the mirror's pages to another admin site. Their links stay on that site."""
    for model, page in admin.site._registry.items():
        if model._meta.app_label == "marketplace_sync":
            site.register(model, type(page))
