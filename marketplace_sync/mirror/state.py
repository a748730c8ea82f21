"""The state row and its totals: the daemon writes them on change, otherwise at most once per second."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from marketplace_sync.mirror.clock import not_ahead
from marketplace_sync.mirror.figures import add_to_minute
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import WebSocketState

TOTALS = ("received", "applied", "unchanged", "stale", "rejected", "shed")


@dataclass(frozen=True, slots=True)
class Remembered:
    """The state that outlives a restart: whether the stream is enabled, the totals, and the newest feed number."""

    enabled: bool
    totals: Counter[str]
    feed_seq: int


def remembered(lease: Lease) -> Remembered:
    """Read the state that outlives a restart."""
    with lease.writing() as head:
        row, _ = WebSocketState.objects.get_or_create(pk=1)
    return Remembered(row.enabled, Counter({name: getattr(row, name) for name in TOTALS}), head.feed_seq)


def save_state(
    lease: Lease, columns: Mapping[str, Any], totals: Mapping[str, int], lags: Mapping[int, int] = MappingProxyType({})
) -> None:
    """Write the state row: `columns` of `WebSocketState` by name. `state_since` changes with the state.

    The growth of the totals is added to this minute's figures in the same transaction, so the sum of all minutes equals
    the totals after any crash. `lags`: see `add_to_minute`.
    """
    with lease.writing() as head:
        before = WebSocketState.objects.get(pk=1)
        written = {**columns, **{name: totals.get(name, 0) for name in TOTALS}}
        if columns["state"] != before.state:
            written["state_since"] = head.now
        if before.state == WebSocketState.State.LIVE and before.complete:
            written["in_sync_at"] = head.now
        WebSocketState.objects.filter(pk=1).update(**written)
        grown = {name: written[name] - getattr(before, name) for name in TOTALS}
        add_to_minute(head.now, grown, lags)


def state_row() -> WebSocketState:
    """Return the row as it was last written; a new one if none was written yet."""
    return WebSocketState.objects.filter(pk=1).first() or WebSocketState()


def save_enabled(lease: Lease, *, enabled: bool) -> None:
    """Store whether the stream is enabled; this outlives restarts."""
    with lease.writing():
        WebSocketState.objects.filter(pk=1).update(enabled=enabled)


def close_state(lease: Lease) -> None:
    """Set the row to `not_running`: at a clean stop, and at the start after a crash."""
    with lease.writing() as head:
        rows = WebSocketState.objects.filter(pk=1).exclude(state=WebSocketState.State.NOT_RUNNING)
        rows.update(
            connected=False,
            state=WebSocketState.State.NOT_RUNNING,
            state_since=head.now,
            next_ws_attempt_at=None,
            fallback_to_polling=False,
            fallback_started_at=None,
        )
        # The clock was set back since. The time would count as proof once the clock reaches it.
        WebSocketState.objects.exclude(not_ahead("in_sync_at", head.now)).update(in_sync_at=None)
