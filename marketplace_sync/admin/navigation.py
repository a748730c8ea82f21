"""The side bar, in the order in which an operator asks: how does it stand, what is there, who may."""

from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.templatetags.static import static

from marketplace_sync.admin.base import manages
from marketplace_sync.admin.dashboard import INDEX_TEMPLATE
from marketplace_sync.admin.sites import enter_site, may_view, reverse, site_of
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

# A badge says that something waits, and how much of it up to here.
COUNTED = 99

Item = dict[str, Any]


def stylesheet(request: HttpRequest) -> str:
    """The address of our own styles."""
    return static("marketplace_sync/admin.css")


def favicon(request: HttpRequest) -> str:
    """The address of the icon in a browser's tab."""
    return static("marketplace_sync/icon.svg")


def sidebar(request: HttpRequest) -> list[Item]:
    """The groups of links; what whoever is asking may not see is not among them."""
    enter_site(request)
    waits = manages(request)
    held = _badge(SyncRun.objects.filter(state=SyncRun.State.HELD)) if waits else {}
    letters = _badge(DeadLetter.objects.filter(state=DeadLetter.State.OPEN)) if waits else {}
    groups = [
        _group(
            "Mirror",
            # A site with a front page of its own has the overview nowhere.
            {"title": "Overview", "icon": "home", "link": reverse("admin:index")}
            if site_of(request).index_template == INDEX_TEMPLATE
            else None,
            _item(request, WebSocketState, "WebSocket", "sensors"),
            _item(request, SyncRun, "Sync runs", "sync", **held),
            _item(request, DeadLetter, "Dead letters", "mark_email_unread", **letters),
            _item(request, Command, "Requests", "pending_actions"),
        ),
        _group(
            "Catalogue",
            _item(request, Skill, "Skills", "deployed_code"),
            _item(request, Category, "Categories", "category"),
            _item(request, FeedChange, "Change feed", "list_alt"),
        ),
        _group(
            "Access",
            _item(request, Agent, "Agents", "smart_toy"),
            _item(request, AuditRow, "Audit log", "fact_check"),
            _item(request, get_user_model(), "People", "group"),
        ),
    ]
    return [group for group in groups if group["items"]]


def _group(title: str, *items: Item | None) -> Item:
    return {"title": title, "items": [item for item in items if item is not None]}


def _item(request: HttpRequest, model: Any, title: str, icon: str, **more: Any) -> Item | None:
    if not may_view(request, model):
        return None
    link = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return {"title": title, "icon": icon, "link": link, **more}


def _badge(waiting: Any) -> Item:
    count = waiting.order_by()[: COUNTED + 1].count()
    if not count:
        return {}
    return {"badge": f"{COUNTED}+" if count > COUNTED else str(count), "badge_variant": "warning"}
