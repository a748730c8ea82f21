"""Format values for the pages. Values of the marketplace are always text: escaped, never a link or an image."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from marketplace_sync.visible.html import hidden_badge, visible_html

EMPTY = "–"

# The colour of each state, by its value in the models. A value that is not listed is neutral.
TONES: Mapping[str, str] = {
    # the stream
    "live": "good", "catching_up": "busy", "connecting": "busy", "reconnecting": "warn", "polling": "warn",
    "suspended": "bad", "not_running": "bad", "disabled": "warn",
    # health and runs
    "healthy": "good", "degraded": "warn", "unhealthy": "bad",
    # runs and commands
    "done": "good", "running": "busy", "failed": "bad", "held": "warn",
    "approved": "good", "interrupted": "warn", "dismissed": "good",
    "pending": "busy", "accepted": "busy", "expired": "bad",
    # dead letters, agents, keys, the audit
    "open": "warn", "replayed": "good", "active": "good", "enabled": "good", "revoked": "bad",
    "performed": "good", "refused": "bad", "not_possible": "warn",
    # the feed
    "skill_created": "good", "category_created": "good", "skill_deleted": "bad", "category_deleted": "bad",
    "skill_updated": "busy", "category_updated": "busy",
}  # fmt: skip


def humanize(name: str) -> str:
    """Return an identifier as words: "catching up" for `catching_up`."""
    return name.replace("_", " ")


def badge(state: str, label: str = "") -> SafeString:
    """Return a state in its colour. `label` replaces its name: colour alone is invisible to some readers."""
    return format_html('<span class="mm-badge mm-{}">{}</span>', TONES.get(state, "plain"), label or humanize(state))


def timestamp(at: datetime | None) -> SafeString | str:
    """Return a time in UTC, to the second."""
    if at is None:
        return EMPTY
    return format_html(
        '<time class="mm-time" datetime="{}" title="UTC">{}</time>', at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%SZ")
    )


def timestamp_and_age(at: datetime | None, now: datetime) -> SafeString | str:
    """Return a time and its distance from `now`, which is the database's clock."""
    if at is None:
        return EMPTY
    age = f"in {duration(at - now)}" if at > now else f"{duration(now - at)} ago"
    return format_html('{} <span class="mm-quiet">({})</span>', timestamp(at), age)


def duration(length: timedelta | None) -> str:
    """Return a duration in its two largest units, or in seconds below two minutes."""
    if length is None:
        return EMPTY
    seconds = length.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    start = datetime(2000, 1, 1)
    return timesince(start, start + length).replace("\xa0", " ")


def latency(seconds: float | None) -> str:
    """Return a latency in ms below one second, else in seconds and larger units."""
    if seconds is None:
        return EMPTY
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else duration(timedelta(seconds=seconds))


def untrusted(value: str) -> SafeString | str:
    """Return text from outside, escaped and with invisible characters marked.

    `<bdi>` keeps its writing direction from affecting the text around it.
    """
    return format_html("<bdi>{}</bdi>{}", visible_html(value), hidden_badge(value)) if value else EMPTY


def pretty_json(value: Any) -> str:
    """Return indented JSON for a `<pre>`. The template escapes it."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str)


def byte_size(count: int) -> str:
    """Return a number of bytes in B, KiB or MiB; the number and its unit stay on one line."""
    if count < 1024:
        return f"{count}\xa0B"
    return f"{count / 1024:.1f}\xa0KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f}\xa0MiB"


def column(
    field: str,
    formatter: Callable[[Any], Any] = visible_html,
    title: str = "",
    *,
    order: str | None = "",
) -> Callable[[Any], Any]:
    """Return a list column that formats one field of each row.

    `order` is the field to sort by: the column's own where empty, none where `None`.
    """

    def cell(row: Any) -> Any:
        value = getattr(row, field)
        return EMPTY if value is None or value == "" else formatter(value)

    cell.__name__ = field
    cell.short_description = title or humanize(field).capitalize()  # type: ignore[attr-defined]
    if order is not None:
        cell.admin_order_field = order or field  # type: ignore[attr-defined]
    return cell
