"""The page of a deleted skill: when it was deleted, by what, and its last changes, while they are kept."""

from typing import Any

from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from marketplace_sync.admin.feed import change_row, changes_url, latest_changes
from marketplace_sync.admin.formatting import EMPTY, timestamp_and_age, untrusted
from marketplace_sync.admin.runs import run_link
from marketplace_sync.admin.sites import reverse
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import FeedChange, Tombstone

TEMPLATE = "admin/marketplace_sync/deleted_skill.html"
# The changes that are searched for the last name.
_MAX_READ = 200


def deleted_skill_id(object_id: str) -> str | None:
    """Return the `skill_id` of the deleted skill that had this primary key or this `skill_id`, else `None`."""
    if "\0" in object_id:
        return None
    by_row = int(object_id) if object_id.isascii() and object_id.isdecimal() and len(object_id) < 19 else -1
    found = Tombstone.objects.filter(skill_row=by_row).values_list("skill_id", flat=True).first()
    if found is not None:
        return found
    deleted = FeedChange.objects.filter(key=object_id, kind=FeedChange.Kind.SKILL_DELETED)
    known = Tombstone.objects.filter(skill_id=object_id).exists() or deleted.exists()
    return object_id if known else None


def deleted_skill_context(request: HttpRequest, skill_id: str) -> dict[str, Any]:
    """Return the context of the page."""
    now = database_now()
    tombstone = Tombstone.objects.filter(skill_id=skill_id).first()
    rows = FeedChange.objects.filter(key=skill_id)
    deleted = rows.filter(kind=FeedChange.Kind.SKILL_DELETED).order_by("-seq").first()
    at = deleted.at if deleted is not None else tombstone.removed_at if tombstone is not None else None
    facts = [
        ("Id", untrusted(skill_id)),
        ("Last known name", _last_name(skill_id)),
        ("Deleted from the mirror", timestamp_and_age(at, now)),
        ("Deleted by", _source(deleted)),
        ("Deleted at the marketplace", timestamp_and_age(tombstone.deleted_at if tombstone is not None else None, now)),
    ]
    return {
        "facts": facts,
        "changes": [change_row(change) for change in latest_changes(skill_id, "skill")],
        "changes_url": changes_url(skill_id),
        "list_url": reverse("admin:marketplace_sync_skill_changelist"),
    }


def _source(deleted: FeedChange | None) -> SafeString | str:
    if deleted is None:
        return "unknown: the change feed no longer keeps this change"
    source = {
        "stream": "the stream: the marketplace reported the deletion",
        "listing": "a full sync: the marketplace no longer listed it",
        "repair": "verifysync --repair",
    }[deleted.source]
    return source if deleted.run_id is None else format_html("{}, {}", source, run_link(deleted.run_id))


def _last_name(skill_id: str) -> SafeString | str:
    changes = FeedChange.objects.filter(key=skill_id, kind__startswith="skill_").order_by("-seq")
    for data in changes.values_list("data", flat=True)[:_MAX_READ]:
        if isinstance(data.get("name"), str):
            return untrusted(data["name"])
    return EMPTY
