"""Show the mirror's pages on an admin site that is not unfold's, without changing the other pages of that site.

Unfold's templates replace Django's by name. Therefore a separate template engine renders the mirror's pages: it finds
unfold's templates first, and the pages get the context that unfold's own site would give them.
"""

from functools import cache
from pathlib import Path
from typing import Any

import unfold  # type: ignore[import-untyped]
from django.contrib.admin import AdminSite
from django.contrib.admin.sites import all_sites
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.backends.django import DjangoTemplates, Template
from django.template.response import TemplateResponse
from django.templatetags.static import static
from unfold.sites import UnfoldAdminSite  # type: ignore[import-untyped]

# These templates reverse a URL that exists only on unfold's own site. Empty templates replace them.
_EMPTIED = {f"unfold/helpers/{name}.html": "" for name in ("search", "command")}


class UnfoldSiteAdapter(UnfoldAdminSite):  # type: ignore[misc]
    """Give a site of another class unfold's interface, with the same name, permissions and registry."""

    def __init__(self, site: AdminSite) -> None:
        super().__init__(site.name)
        all_sites.discard(self)
        self._site = site
        self._registry = site._registry

    def has_permission(self, request: HttpRequest) -> bool:
        return self._site.has_permission(request)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = {**super().each_context(request), **self._site.each_context(request)}
        return {**context, "styles": [static("marketplace_sync/admin.css")]}

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        from marketplace_sync.admin.navigation import sidebar  # which imports the pages, and they import this

        return [
            {**group, "items": self._get_navigation_items(request, group["items"], [])} for group in sidebar(request)
        ]


def unfold_site(site: AdminSite) -> AdminSite:
    """Return the site itself if it is unfold's, else an adapter around it."""
    return site if isinstance(site, UnfoldAdminSite) else UnfoldSiteAdapter(site)


def render_with_unfold(response: HttpResponse) -> None:
    """Make an unrendered page use unfold's templates, whatever the project's own engine prefers."""
    if not isinstance(response, TemplateResponse) or not isinstance(response.template_name, str | list | tuple):
        return
    names = [response.template_name] if isinstance(response.template_name, str) else list(response.template_name)
    response.template_name = Template(_engine().engine.select_template(names), _engine())


@cache
def _engine() -> Any:
    project = next((each for each in engines.all() if isinstance(each, DjangoTemplates)), None)
    folders = [Path(__file__).parents[1] / "templates", Path(unfold.__file__).parent / "templates"]
    loaders = [
        ("django.template.loaders.locmem.Loader", _EMPTIED),
        ("django.template.loaders.filesystem.Loader", folders),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {
        "loaders": [("django.template.loaders.cached.Loader", loaders)],
        "context_processors": project.engine.context_processors if project is not None else [],
    }
    return DjangoTemplates({"NAME": "marketplace_sync", "DIRS": [], "APP_DIRS": False, "OPTIONS": options})
