"""The base classes of the mirror's admin pages. The pages are read-only.

Every staff account may see the catalogue and the change feed, because reading them is LOW. The management pages are
for actors of maturity AUTONOMOUS, and for people who have Django's view permission on the model. Changes are made only
by actions (`action_views`), whatever the account's permissions.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.contrib.admin import AdminSite, ShowFacets
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]

from marketplace_sync.admin.restricted_list import RestrictedListMixin
from marketplace_sync.admin.site_adapter import unfold_site
from marketplace_sync.admin.sites import site_page
from marketplace_sync.governance.actors import Actor, actor_of
from marketplace_sync.governance.policy import Complexity, allows
from marketplace_sync.visible import visible


@dataclass(frozen=True, slots=True)
class Section:
    """One card of a detail page: `facts` are pairs of a label and a value, `preformatted` a text below them."""

    title: str
    facts: list[tuple[str, Any]] = field(default_factory=list)
    preformatted: str = ""


class ReadOnlyAdmin(RestrictedListMixin, ModelAdmin):  # type: ignore[misc]
    """The list and the detail pages of a model, read-only. A subclass fills the detail page in `detail`."""

    reading: ClassVar[Complexity] = Complexity.LOW
    detail_template = "admin/marketplace_sync/detail.html"
    actions: Any = None
    list_per_page = 25
    list_max_show_all = 0
    show_full_result_count = False
    list_filter_sheet = False
    list_fullwidth = True
    # Facets count all rows once per choice of every filter.
    show_facets = ShowFacets.NEVER

    def __init__(self, model: type[Model], admin_site: AdminSite) -> None:
        super().__init__(model, unfold_site(admin_site))

    @property
    def urls(self) -> list[Any]:
        return [site_page(pattern) for pattern in super().urls]

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        actor = actor_of(request.user)
        if actor is None:
            return False
        if allows(actor.maturity, self.reading):
            return True
        return actor.kind == "person" and bool(super().has_view_permission(request, obj))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": page_title(self.model), **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the detail page. It contains no form for the row, so it accepts no POST."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self.row(request, object_id)
        title = self.title_of(row)
        context = {**self.page_context(request, title, original=row), **self.detail(request, row)}
        return TemplateResponse(request, self.detail_template, {**context, **(extra_context or {})})

    def title_of(self, row: Any) -> str:
        """Return the title of the detail page."""
        return visible(str(row))

    def row(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row that a URL names. Raises `Http404`, also for an id that is none."""
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id[:80]}.")
        return found

    @abstractmethod
    def detail(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context of the detail page: `sections`, and what its own template needs."""

    def is_list(self, request: HttpRequest) -> bool:
        """Return whether the request is for the list, which needs fewer columns than the detail page."""
        match = request.resolver_match
        return match is not None and str(match.url_name).endswith("_changelist")

    def page_context(self, request: HttpRequest, title: str, **more: Any) -> dict[str, Any]:
        """Return the context that the admin's base template needs, and `more`."""
        request.current_app = self.admin_site.name
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "has_view_permission": True,
            **more,
        }


class ManagementAdmin(ReadOnlyAdmin):
    """The pages of a model that belongs to the management, as `/api/admin/` does."""

    reading = Complexity.CRITICAL

    def title_of(self, row: Any) -> str:
        """Return the title; it begins with a capital, because it names one of the mirror's own rows."""
        return capfirst(super().title_of(row))


def page_title(model: type[Model]) -> str:
    """Return the title of a model's list. Menu, heading and breadcrumbs share it."""
    return capfirst(str(model._meta.verbose_name_plural))


def may_manage(request: HttpRequest) -> bool:
    """Return whether the visitor acts as AUTONOMOUS."""
    actor: Actor | None = actor_of(request.user)
    return actor is not None and allows(actor.maturity, Complexity.CRITICAL)
