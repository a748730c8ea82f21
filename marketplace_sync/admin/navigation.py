"""The sidebar, in the order of an operator's questions: the state, the catalogue, the access rights."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.templatetags.static import static

from marketplace_sync.admin.base import may_manage, page_title
from marketplace_sync.admin.overview import INDEX_TEMPLATE, TITLE
from marketplace_sync.admin.sites import may_view, reverse, set_current_site, site_of
from marketplace_sync.models import (
    Agent,
    AuditRow,
    Category,
    Command,
    DeadLetter,
    FeedChange,
    Skill,
    SyncRun,
    WebSocketState,
)

# A badge counts the rows that wait for a person, up to here.
MAX_COUNTED = 99

Item = dict[str, Any]


def stylesheet(request: HttpRequest) -> str:
    """Return the URL of the mirror's own styles."""
    return static("marketplace_sync/admin.css")


def favicon(request: HttpRequest) -> str:
    """Return the URL of the icon for the browser's tab."""
    return static("marketplace_sync/icon.svg")


def sidebar(request: HttpRequest) -> list[Item]:
    """Return the groups of links to the pages that the visitor may see."""
    set_current_site(request)
    counts = may_manage(request)
    on_hold = _badge(SyncRun.objects.filter(state=SyncRun.State.HELD)) if counts else {}
    dead_letters = _badge(DeadLetter.objects.filter(state=DeadLetter.State.OPEN)) if counts else {}
    groups = [
        _group(
            "Mirror",
            # A site with its own index page has no overview.
            {"title": TITLE, "icon": "home", "link": reverse("admin:index")}
            if site_of(request).index_template == INDEX_TEMPLATE
            else None,
            _item(request, WebSocketState, "sensors"),
            _item(request, SyncRun, "sync", **on_hold),
            _item(request, DeadLetter, "mark_email_unread", **dead_letters),
            _item(request, Command, "pending_actions"),
        ),
        _group(
            "Catalogue",
            _item(request, Skill, "deployed_code"),
            _item(request, Category, "category"),
            _item(request, FeedChange, "list_alt"),
        ),
        _group(
            "Access",
            _item(request, Agent, "smart_toy"),
            _item(request, AuditRow, "fact_check"),
            _item(request, get_user_model(), "group"),
        ),
    ]
    return [group for group in groups if group["items"]]


def _group(title: str, *items: Item | None) -> Item:
    return {"title": title, "items": [item for item in items if item is not None]}


def _item(request: HttpRequest, model: Any, icon: str, **more: Any) -> Item | None:
    if not may_view(request, model):
        return None
    link = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return {"title": page_title(model), "icon": icon, "link": link, **more}


def _badge(waiting: Any) -> Item:
    count = waiting.order_by()[: MAX_COUNTED + 1].count()
    if not count:
        return {}
    return {"badge": f"{MAX_COUNTED}+" if count > MAX_COUNTED else str(count), "badge_variant": "warning"}
