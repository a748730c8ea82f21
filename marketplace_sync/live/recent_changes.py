"""The latest changes of the feed, bounded, for all clients of a process that are nearly caught up."""

from bisect import bisect_right
from collections.abc import Sequence

from marketplace_sync.live.messages import EncodedChange


class RecentChanges:
    """The changes after `floor` up to `newest`: at most `rows` of them, with at most `chars` characters of text."""

    def __init__(self, newest: int, *, rows: int, chars: int) -> None:
        self.floor = self.newest = newest
        self._rows = rows
        self._chars = chars
        self._changes: list[EncodedChange] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._changes)

    def extend(self, changes: Sequence[EncodedChange], newest: int) -> None:
        """Append the changes that follow, which reach up to `newest`. Drop the oldest over the limits."""
        self._changes += changes
        self._size += sum(len(change.text) for change in changes)
        self.newest = newest
        dropped = 0
        while dropped < len(self._changes) and (len(self._changes) - dropped > self._rows or self._size > self._chars):
            self._size -= len(self._changes[dropped].text)
            dropped += 1
        if dropped:
            self.floor = self._changes[dropped - 1].seq
            del self._changes[:dropped]

    def after(self, seq: int) -> Sequence[EncodedChange] | None:
        """Return the changes after that number; `None` if the oldest of them are no longer kept here."""
        if seq < self.floor:
            return None
        return self._changes[bisect_right(self._changes, seq, key=lambda change: change.seq) :]
