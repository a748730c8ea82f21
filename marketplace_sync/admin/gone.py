"""The page of a deleted skill: when it went, what removed it, and its last changes, as far as they are kept."""

from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString

from marketplace_sync.admin.feed import changes_url, latest_changes
from marketplace_sync.admin.present import NOTHING, ago, text
from marketplace_sync.admin.runs import run_link
from marketplace_sync.admin.sites import reverse
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import FeedChange, Tombstone

TEMPLATE = "admin/marketplace_sync/gone.html"
_NAMES_READ = 200


def id_of_gone(object_id: str) -> str | None:
    """Return the `skill_id` of the deleted skill that had this primary key or this `skill_id`."""
    if "\0" in object_id:
        return None
    by_row = int(object_id) if object_id.isascii() and object_id.isdecimal() and len(object_id) < 19 else -1
    found = Tombstone.objects.filter(skill_row=by_row).values_list("skill_id", flat=True).first()
    if found is not None:
        return found
    deleted = FeedChange.objects.filter(key=object_id, kind=FeedChange.Kind.SKILL_DELETED)
    known = Tombstone.objects.filter(skill_id=object_id).exists() or deleted.exists()
    return object_id if known else None


def gone(request: HttpRequest, skill_id: str) -> dict[str, Any]:
    """Return what the page shows."""
    now = database_now()
    tombstone = Tombstone.objects.filter(skill_id=skill_id).first()
    rows = FeedChange.objects.filter(key=skill_id)
    deleted = rows.filter(kind=FeedChange.Kind.SKILL_DELETED).order_by("-seq").first()
    at = deleted.at if deleted is not None else tombstone.removed_at if tombstone is not None else None
    facts = [
        ("Id", text(skill_id)),
        ("Last known name", _last_name(skill_id)),
        ("Deleted here", ago(at, now)),
        ("Deleted by", _source(deleted)),
        ("Deleted there", ago(tombstone.deleted_at if tombstone is not None else None, now)),
    ]
    return {
        "facts": facts,
        "changes": [(change, run_link(change.run_id)) for change in latest_changes(skill_id, "skill")],
        "changes_url": changes_url(skill_id),
        "list_url": reverse("admin:marketplace_sync_skill_changelist"),
    }


def _source(deleted: FeedChange | None) -> SafeString | str:
    if deleted is None:
        return "no longer kept"
    by = {"stream": "the stream: the marketplace said so", "listing": "a full sync that did not find it",
          "repair": "a repair that a person asked for"}[deleted.source]  # fmt: skip
    return by if deleted.run_id is None else SafeString(f"{by}, {run_link(deleted.run_id)}")


def _last_name(skill_id: str) -> SafeString | str:
    named = FeedChange.objects.filter(key=skill_id, kind__startswith="skill_").order_by("-seq")
    for data in named.values_list("data", flat=True)[:_NAMES_READ]:
        if isinstance(data.get("name"), str):
            return text(data["name"])
    return NOTHING
