"""Reading the change feed: what stands after a number, for the API and for the WebSocket alike.

Numbers are given under the lease row's lock, held until the commit, so commits come in the order of their numbers,
and pruning takes from the front alone. Whoever sees a number therefore sees all before it that are kept, and a
first change that is not the next one means that those between are gone. No transaction is needed for that.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from marketplace_sync.models import FeedChange, LeaseRow

# A filtered read looks at no more numbers than this at once, so that no query scans a million rows for one.
MAX_SCANNED = 20_000


class Change(msgspec.Struct, frozen=True):
    """One change, as the API and the WebSocket show it (INTERFACE.md, HTTP API). `at` is UTC."""

    seq: int
    kind: str
    key: str
    at: datetime
    source: str
    data: dict[str, Any]


class Page(msgspec.Struct, frozen=True):
    """Changes in the order of commits. `next_after`: all up to that number has been looked at, wanted or not.

    `newest` is the newest number given when the page was read; `next_after == newest`: there is no more for now.
    """

    changes: tuple[Change, ...]
    next_after: int
    newest: int


class FeedGoneError(Exception):
    """What follows `after` can't be told: it is no longer kept, or `after` is ahead of `newest`. List anew."""

    def __init__(self, after: int, newest: int) -> None:
        why = f"is ahead of the newest, {newest}" if after > newest else "is older than what is kept"
        super().__init__(f"{after} {why}; list anew")
        self.after = after
        self.newest = newest


def newest_seq() -> int:
    """The newest number given; 0 before the first change."""
    return LeaseRow.objects.filter(pk=1).values_list("feed_seq", flat=True).first() or 0


def changes_after(after: int, limit: int, *, kinds: Collection[str] = (), keys: Collection[str] = ()) -> Page:
    """Up to `limit` changes after that number, of these kinds and keys alone where any are given.

    Filtered, it looks at `MAX_SCANNED` numbers at most: go on from `next_after` until it is `newest`.
    Raises `FeedGoneError`.
    """
    # Before the rows: what is numbered up to here is committed, and whoever knows `after` knew it before.
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
    # After the rows: what stands before them now stood there then.
    first = after + 1
    if not (FeedChange.objects.filter(seq=first).exists() if filtered else found and found[0].seq == first):
        raise FeedGoneError(after, newest)
    return Page(found, found[-1].seq if len(found) == limit else end, newest)
