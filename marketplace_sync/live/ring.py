"""The latest changes of the feed, bounded, for all clients of a process that are nearly caught up."""

from bisect import bisect_right
from collections.abc import Sequence

from marketplace_sync.live.entries import Entry


class Ring:
    """The changes after `floor` up to `newest`, at most `rows` of them and `chars` of their text."""

    def __init__(self, newest: int, *, rows: int, chars: int) -> None:
        self.floor = self.newest = newest
        self._rows = rows
        self._chars = chars
        self._entries: list[Entry] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def extend(self, entries: Sequence[Entry], newest: int) -> None:
        """Append what follows; with it everything up to `newest` is known. The oldest go where it is too much."""
        self._entries += entries
        self._size += sum(len(entry.text) for entry in entries)
        self.newest = newest
        gone = 0
        while gone < len(self._entries) and (len(self._entries) - gone > self._rows or self._size > self._chars):
            self._size -= len(self._entries[gone].text)
            gone += 1
        if gone:
            self.floor = self._entries[gone - 1].seq
            del self._entries[:gone]

    def after(self, seq: int) -> Sequence[Entry] | None:
        """What follows that number; `None` when it is older than what is held here."""
        if seq < self.floor:
            return None
        return self._entries[bisect_right(self._entries, seq, key=lambda entry: entry.seq) :]
