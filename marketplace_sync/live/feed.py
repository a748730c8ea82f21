"""Read the change feed: the changes after a number, for the API and the WebSocket.

Feed numbers are assigned under the lease row's lock, which lasts until the commit, so commit order is number order.
Pruning removes from the front only. A reader that sees a number therefore sees all earlier ones that are kept, and if
the first change found is not the next number, those between are gone. No transaction is needed for that.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from marketplace_sync.models import FeedChange, LeaseRow

# One filtered read scans at most this many numbers, so that no query scans a million rows for one change.
MAX_SCANNED = 20_000


class Change(msgspec.Struct, frozen=True):
    """One change, as the API and the WebSocket send it. `at` is UTC."""

    seq: int
    kind: str
    key: str
    at: datetime
    source: str
    data: dict[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Changes in the order of commits. All numbers up to `next_after` were read, also those filtered out.

    `newest` is the newest number assigned when the page was read; `next_after == newest` means no more for now.
    """

    changes: tuple[Change, ...]
    next_after: int
    newest: int


class FeedGoneError(Exception):
    """The changes after `after` are no longer kept, or `after` is ahead of `newest`. The client must list again."""

    def __init__(self, after: int, newest: int) -> None:
        why = f"is ahead of the newest, {newest}" if after > newest else "is older than what is kept"
        super().__init__(f"{after} {why}; list the catalogue again")
        self.after = after
        self.newest = newest


def newest_seq() -> int:
    """Return the newest number assigned; 0 before the first change."""
    return LeaseRow.objects.filter(pk=1).values_list("feed_seq", flat=True).first() or 0


def changes_after(after: int, limit: int, *, kinds: Collection[str] = (), keys: Collection[str] = ()) -> Page:
    """Return at most `limit` changes after that number, only of these kinds and keys where any are given.

    A filtered read scans at most `MAX_SCANNED` numbers: continue from `next_after` until it is `newest`.
    Raise `FeedGoneError`.
    """
    # Read before the rows: everything up to this number is committed, and a client got its `after` earlier.
    newest = newest_seq()
    if after > newest:
        raise FeedGoneError(after, newest)
    if after == newest:
        return Page((), after, newest)
    filtered = bool(kinds or keys)
    end = min(newest, after + MAX_SCANNED) if filtered else newest
    rows = FeedChange.objects.filter(seq__gt=after, seq__lte=end).order_by("seq")
    if kinds:
        rows = rows.filter(kind__in=kinds)
    if keys:
        rows = rows.filter(key__in=keys)
    found = tuple(Change(*row) for row in rows.values_list("seq", "kind", "key", "at", "source", "data")[:limit])
    # Checked after the rows: a change that is still there now was there when the rows were read.
    first = after + 1
    if not (FeedChange.objects.filter(seq=first).exists() if filtered else found and found[0].seq == first):
        raise FeedGoneError(after, newest)
    return Page(found, found[-1].seq if len(found) == limit else end, newest)
