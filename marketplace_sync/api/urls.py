"""The paths of the API."""

from django.urls import include, path, re_path, register_converter
from rest_framework.routers import SimpleRouter

from marketplace_sync.api.catalogue import CategoryViewSet, SkillViewSet
from marketplace_sync.api.changes import ChangesView
from marketplace_sync.api.control import (
    AuditViewSet,
    CommandViewSet,
    DeadLetterViewSet,
    RunViewSet,
    SyncViewSet,
    WebSocketViewSet,
)
from marketplace_sync.api.schema import DocsView, SchemaView
from marketplace_sync.api.views import UnknownPath


class AnythingConverter:
    """An id of the marketplace: any characters, including slashes and line breaks, after decoding."""

    regex = r"[\s\S]+"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(AnythingConverter, "marketplace_sync_anything")

router = SimpleRouter(use_regex_path=False)
router.register("skills", SkillViewSet, "skill")
router.register("categories", CategoryViewSet, "category")
router.register("admin/websocket", WebSocketViewSet, "websocket")
router.register("admin/sync/runs", RunViewSet, "run")
router.register("admin/sync", SyncViewSet, "sync")
router.register("admin/commands", CommandViewSet, "command")
router.register("admin/dead-letters", DeadLetterViewSet, "dead-letter")
router.register("admin/audit", AuditViewSet, "audit")

app_name = "api"
urlpatterns = [
    path("schema/", SchemaView.as_view(), name="schema"),
    path("docs/", DocsView.as_view(url_name="api:schema"), name="docs"),
    path("changes/", ChangesView.as_view(), name="changes"),
    path("", include(router.urls)),
    # It ends with a slash, so that Django still redirects /api/skills to /api/skills/.
    re_path(r"^(?:[\s\S]*/)?$", UnknownPath.as_view()),
]
