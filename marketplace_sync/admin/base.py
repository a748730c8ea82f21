"""What every page of the mirror has in common: it shows, and changes nothing.

Who may see: the catalogue and its feed every staff account, as reading them is LOW; the management pages whoever
acts as AUTONOMOUS, and whom Django's own view permission of that model was given. What is to be changed is changed
by actions alone (`acting`), whoever is asking.
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
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]

from marketplace_sync.admin.bounds import BoundedList
from marketplace_sync.admin.plain import face_of
from marketplace_sync.admin.sites import on_site
from marketplace_sync.governance.actors import Actor, actor_of
from marketplace_sync.governance.policy import Complexity, allows
from marketplace_sync.visible import visible


@dataclass(frozen=True, slots=True)
class Section:
    """One card of a detail page: `facts` are labels with what stands behind them, `notes` paragraphs below."""

    title: str
    facts: list[tuple[str, Any]] = field(default_factory=list)
    preformatted: str = ""
    notes: list[Any] = field(default_factory=list)


class ReadOnlyAdmin(BoundedList, ModelAdmin):  # type: ignore[misc]
    """List and detail of a model, for looking. `detail` says what stands on the detail page."""

    reading: ClassVar[Complexity] = Complexity.LOW
    detail_template = "admin/marketplace_sync/detail.html"
    actions: Any = None
    list_per_page = 25
    list_max_show_all = 0
    show_full_result_count = False
    list_filter_sheet = False
    list_fullwidth = True
    # A facet is a count of all rows for every choice of every filter.
    show_facets = ShowFacets.NEVER

    def __init__(self, model: type[Model], admin_site: AdminSite) -> None:
        super().__init__(model, face_of(admin_site))

    @property
    def urls(self) -> list[Any]:
        return [on_site(pattern) for pattern in super().urls]

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
        title = str(self.opts.verbose_name_plural).capitalize()
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The detail page. No form stands on it, so nothing can be posted to it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self.row(request, object_id)
        context = {**self.page_context(request, visible(str(row)), original=row), **self.detail(request, row)}
        return TemplateResponse(request, self.detail_template, {**context, **(extra_context or {})})

    def row(self, request: HttpRequest, object_id: str) -> Any:
        """The row of this id as it stands in a URL. Raises `Http404`, also for an id that can't be."""
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404(f"There is no {self.opts.verbose_name} {object_id[:80]}.")
        return found

    @abstractmethod
    def detail(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the detail page's template shows: `sections`, and more where it has a template of its own."""

    def is_list(self, request: HttpRequest) -> bool:
        """Whether the list is asked for, which shows less of a row than its detail page."""
        match = request.resolver_match
        return match is not None and str(match.url_name).endswith("_changelist")

    def page_context(self, request: HttpRequest, title: str, **more: Any) -> dict[str, Any]:
        """What a page of this model needs to stand in the admin's frame."""
        request.current_app = self.admin_site.name
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "has_view_permission": True,
            **more,
        }


class ManagementAdmin(ReadOnlyAdmin):
    """A page of the mirror's management, which the API has under `/api/admin/`."""

    reading = Complexity.CRITICAL


def manages(request: HttpRequest) -> bool:
    """Whether who asks acts as AUTONOMOUS."""
    actor: Actor | None = actor_of(request.user)
    return actor is not None and allows(actor.maturity, Complexity.CRITICAL)
