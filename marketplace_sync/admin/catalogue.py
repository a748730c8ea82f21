"""The catalogue: skills and categories as the marketplace reported them, read-only."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.base import ReadOnlyAdmin, Section
from marketplace_sync.admin.deleted_skill import TEMPLATE, deleted_skill_context, deleted_skill_id
from marketplace_sync.admin.feed import change_row, changes_url, latest_changes
from marketplace_sync.admin.filters import text_filter
from marketplace_sync.admin.formatting import EMPTY, column, pretty_json, timestamp, timestamp_and_age, untrusted
from marketplace_sync.admin.runs import run_link
from marketplace_sync.admin.sites import reverse
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import Category, FeedChange, Skill
from marketplace_sync.models.search import problem_of
from marketplace_sync.visible import visible
from marketplace_sync.visible.html import hidden_badge, visible_html

# The list does not show these columns; `code` alone may have 1 MB per row.
NOT_LISTED = ("code", "metadata", "extra", "description", "python_packages", "npm_packages")

LANGUAGES = {
    "python": "Python", "python3": "Python", "node": "JavaScript", "nodejs": "JavaScript", "deno": "TypeScript",
    "bun": "TypeScript", "ts-node": "TypeScript", "bash": "Shell", "sh": "Shell", "zsh": "Shell", "ruby": "Ruby",
    "perl": "Perl", "php": "PHP", "pwsh": "PowerShell", "powershell": "PowerShell", "go": "Go", "rscript": "R",
}  # fmt: skip


def _tagged(rows: Any, tag: str) -> QuerySet[Any]:
    return rows.tagged(tag)  # type: ignore[no-any-return]


class RatingFilter(admin.SimpleListFilter):
    """Filter by a minimum rating, or for skills without one."""

    title = "rating"
    parameter_name = "rating"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("4.5", "4.5 or more"), ("4", "4 or more"), ("3", "3 or more"), ("none", "not rated")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Skill]) -> QuerySet[Skill]:
        match self.value():
            case "none":
                return queryset.filter(average_rating__isnull=True)
            case "3" | "4" | "4.5" as least:
                return queryset.filter(average_rating__gte=float(least))
            case _:
                return queryset


@admin.register(Skill)
class SkillAdmin(ReadOnlyAdmin):
    """The served skills."""

    detail_template = "admin/marketplace_sync/skill.html"
    list_display = (
        column("name", untrusted),
        "category_link",
        "rating",
        column("version", untrusted, order=None),
        "tag_chips",
        column("remote_updated_at", timestamp, "Updated"),
    )
    list_filter = (
        text_filter("tag", "tag", _tagged, hint="exact tag"),
        RatingFilter,
        "remote_updated_at",
        "category",
    )
    search_fields = ("name",)
    search_help_text = "Words of name, description or tags; or a skill id"
    list_select_related = ("category",)

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        if self.is_list(request):
            return rows.defer(*NOT_LISTED, "category__description", "category__icon_url")
        return rows.select_related("category")

    def search(self, request: HttpRequest, rows: Any, text: str) -> tuple[Any, bool]:
        if not text.strip():
            return rows, False
        by_id = rows.filter(skill_id=text.strip())
        if by_id.exists():
            return by_id, False
        if problem := problem_of(text):
            messages.warning(request, f"The search was not run. {problem}")
            return rows.none(), False
        return rows.matching(text), False

    def get_urls(self) -> list[URLPattern]:
        found = path("deleted/", self.admin_site.admin_view(self.deleted), name="marketplace_sync_skill_deleted")
        return [found, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the detail page, also for a `skill_id` in the URL; for a deleted skill its page, with 404."""
        try:
            return super().change_view(request, object_id, form_url, extra_context)
        except Http404:
            name = unquote(object_id)
            return self._by_id(request, deleted_skill_id(name) or name)

    def deleted(self, request: HttpRequest) -> HttpResponse:
        """Return the page of a deleted skill: `?key=SKILL_ID`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self._by_id(request, request.GET.get("key", ""))

    def _by_id(self, request: HttpRequest, skill_id: str) -> HttpResponse:
        """Redirect to the skill with this id, or return the page of the deleted skill."""
        if "\0" in skill_id:
            raise Http404("No skill id contains a NUL character.")
        pk = Skill.objects.filter(skill_id=skill_id).values_list("pk", flat=True).first()
        if pk is not None:
            return HttpResponseRedirect(reverse("admin:marketplace_sync_skill_change", args=(pk,)))
        if deleted_skill_id(skill_id) is None:
            raise Http404(f"There is no skill {skill_id[:80]}, and no record of a deleted one.")
        title = f"Deleted skill {visible(skill_id)}"
        context = self.page_context(request, title, **deleted_skill_context(request, skill_id))
        return TemplateResponse(request, TEMPLATE, context, status=404)

    @admin.display(description="Category", ordering="category__name")
    def category_link(self, row: Skill) -> SafeString | str:
        return untrusted(row.category.name) if row.category else EMPTY

    @admin.display(description="Rating", ordering=F("average_rating").desc(nulls_last=True))
    def rating(self, row: Skill) -> SafeString | str:
        return _rating(row)

    @admin.display(description="Tags")
    def tag_chips(self, row: Skill) -> SafeString:
        return format_html('<span class="mm-chips">{}</span>', _chips(row.tags[:2], len(row.tags) - 2))

    def detail(self, request: HttpRequest, row: Skill) -> dict[str, Any]:
        now = database_now()
        changes = latest_changes(row.skill_id, "skill")
        run_id = next((change.run_id for change in changes if change.run_id is not None), None)
        facts = [
            ("Id", untrusted(row.skill_id)),
            ("Category", _category_link(row.category)),
            ("Version", untrusted(row.version)),
            ("Rating", _rating(row)),
            ("Rated", timestamp_and_age(row.rating_at, now)),
            ("Created at the marketplace", timestamp_and_age(row.remote_created_at, now)),
            ("Updated at the marketplace", timestamp_and_age(row.remote_updated_at, now)),
            ("Written to the mirror", timestamp_and_age(row.synced_at, now)),
            ("Written by", _last_written_by(changes, run_id)),
        ]
        return {
            "skill": row,
            "name": untrusted(row.name),
            "description": untrusted(row.description),
            "sections": [Section("About", facts)],
            "tags": _chips(row.tags, 0),
            "packages": [("Python", row.python_packages), ("npm", row.npm_packages)],
            "language": LANGUAGES.get(row.command.lower(), visible(row.command) or "unknown language"),
            "lines": row.code.count("\n") + 1 if row.code else 0,
            "metadata": pretty_json(row.metadata) if row.metadata else "",
            "extra": pretty_json(row.extra) if row.extra else "",
            "changes": [change_row(change) for change in changes],
            "changes_url": changes_url(row.skill_id),
        }


@admin.register(Category)
class CategoryAdmin(ReadOnlyAdmin):
    """The categories."""

    list_display = (
        column("name", untrusted),
        column("description", untrusted, order=None),
        column("skill_count", str, "Skills (reported)"),
        column("remote_updated_at", timestamp, "Updated"),
    )
    search_fields = ("name", "description")
    search_help_text = "Name or description"

    def detail(self, request: HttpRequest, row: Category) -> dict[str, Any]:
        now = database_now()
        skills = f"{reverse('admin:marketplace_sync_skill_changelist')}?category__id__exact={row.pk}"
        facts = [
            ("Name", untrusted(row.name)),
            ("Description", untrusted(row.description)),
            # Text only, neither a link nor an image: it leads to another host.
            ("Icon URL", untrusted(row.icon_url)),
            ("Skills (reported)", row.skill_count),
            ("Skills in the mirror", format_html('<a class="mm-link" href="{}">{}</a>', skills, row.skills.count())),
            ("Created at the marketplace", timestamp_and_age(row.remote_created_at, now)),
            ("Updated at the marketplace", timestamp_and_age(row.remote_updated_at, now)),
        ]
        changes = latest_changes(row.name, "category")
        return {
            "sections": [Section("About", facts)],
            "changes": [change_row(change) for change in changes],
            "changes_url": changes_url(row.name),
        }


def _rating(row: Skill) -> SafeString | str:
    if row.average_rating is None:
        return EMPTY
    stars = f"{row.average_rating:.2f}"
    return format_html('<span class="mm-time">★ {} <span class="mm-quiet">({})</span></span>', stars, row.rating_count)


def _tag_url(tag: str) -> str:
    return f"{reverse('admin:marketplace_sync_skill_changelist')}?{urlencode({'tag': tag})}"


def _chips(tags: list[str], more: int) -> SafeString:
    chips = [format_html('<a class="mm-chip" href="{}">{}</a>', _tag_url(tag), visible_html(tag)) for tag in tags]
    if more > 0:
        chips.append(format_html('<span class="mm-quiet">+{}</span>', more))
    return SafeString("".join([*chips, hidden_badge(*tags)]))


def _category_link(category: Category | None) -> SafeString | str:
    if category is None:
        return EMPTY
    url = reverse("admin:marketplace_sync_category_change", args=(category.pk,))
    return format_html('<a class="mm-link" href="{}">{}</a>', url, untrusted(category.name))


def _last_written_by(changes: list[FeedChange], run_id: int | None) -> SafeString | str:
    """Return the source of the newest change, and the newest sync run among the changes."""
    if not changes:
        return EMPTY
    newest = changes[0]
    if newest.run_id is not None or run_id is None:
        return format_html("{}, {}", newest.source, run_link(newest.run_id)) if newest.run_id else newest.source
    return format_html("{}; before that {}", newest.source, run_link(run_id))
