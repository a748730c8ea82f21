"""How values look on the pages. All that comes from the marketplace is text here: escaped, never a link or an image."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from marketplace_sync.visible.html import hidden_badge, visible_html

NOTHING = "–"

# Tones, by the state as the models say it. What is not here is neutral.
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


def words(name: str) -> str:
    """`catching_up` as people read it."""
    return name.replace("_", " ")


def badge(state: str, text: str = "") -> SafeString:
    """A state with its colour; the text says it too, for colour alone says nothing to some."""
    return format_html('<span class="mm-badge mm-{}">{}</span>', TONES.get(state, "plain"), text or words(state))


def moment(at: datetime | None) -> SafeString | str:
    """A time to the second, UTC."""
    if at is None:
        return NOTHING
    return format_html(
        '<time class="mm-time" datetime="{}" title="UTC">{}</time>', at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%SZ")
    )


def ago(at: datetime | None, now: datetime) -> SafeString | str:
    """A time, and how far it is from `now`, which is the database's."""
    if at is None:
        return NOTHING
    away = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    return format_html('{} <span class="mm-quiet">({})</span>', moment(at), away)


def span(length: timedelta | None) -> str:
    """A length of time in the two largest units, seconds for a short one."""
    if length is None:
        return NOTHING
    seconds = length.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    start = datetime(2000, 1, 1)
    return timesince(start, start + length).replace("\xa0", " ")


def delay(length: float | None) -> str:
    """Seconds of a delay, in the unit that people compare them by."""
    if length is None:
        return NOTHING
    if length < 1:
        return f"{length * 1000:.0f} ms"
    return f"{length:.1f} s" if length < 10 else span(timedelta(seconds=length))


def text(value: str) -> SafeString | str:
    """Return a text of somebody else's: kept from turning what stands around it, what nobody sees in it marked."""
    return format_html("<bdi>{}</bdi>{}", visible_html(value), hidden_badge(value)) if value else NOTHING


def pretty_json(value: Any) -> str:
    """For a `<pre>`; what escapes by itself there is escaped by the template."""
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, default=str)


def size(count: int) -> str:
    """Bytes as people read them, on one line."""
    if count < 1024:
        return f"{count}\xa0B"
    return f"{count / 1024:.1f}\xa0KiB" if count < 1024 * 1024 else f"{count / 1024 / 1024:.1f}\xa0MiB"


def column(
    field: str,
    show: Callable[[Any], Any] = visible_html,
    title: str = "",
    *,
    order: str | None = "",
    empty: str = NOTHING,
) -> Callable[[Any], Any]:
    """A list's column: `field` of each row as `show` makes it. `order`: what it sorts by, `None` for not at all."""

    def cell(row: Any) -> Any:
        value = getattr(row, field)
        return empty if value is None or value == "" else show(value)

    cell.__name__ = field
    cell.short_description = title or words(field).capitalize()  # type: ignore[attr-defined]
    if order is not None:
        cell.admin_order_field = order or field  # type: ignore[attr-defined]
    return cell
