"""Sends the daemon's signals, in a thread that nobody waits for (see `signals`)."""

import threading
from collections import deque
from typing import Any

from django.db import connections
from django.dispatch import Signal

from marketplace_sync.models import FeedChange, SyncRun, WebSocketState
from marketplace_sync.signals import changes_committed, connection_state_changed, removals_held

# States and held runs change a few times a minute at most: whoever is this far behind never catches up.
MAX_WAITING = 1000


class FeedAnnouncer:
    """Call its methods in the event loop: they neither wait nor raise. `seq` is the newest feed number so far.

    The thread begins with the first signal that somebody listens to, and ends with the process whatever a listener
    is at.
    """

    def __init__(self, seq: int) -> None:
        self._told = seq
        self._newest = seq
        self._waiting: deque[tuple[Signal, type, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._closed = self._busy = False
        self._thread: threading.Thread | None = None

    def committed(self, seq: int) -> None:
        """All changes up to `seq` are committed."""
        with self._changed:
            if seq > self._newest:
                self._newest = seq
                self._begin(changes_committed, FeedChange)

    def held(self, run_id: int, count: int, reason: str) -> None:
        """That run holds removals back."""
        self._put(removals_held, SyncRun, run_id=run_id, count=count, reason=reason)

    def state(self, state: str, before: str, reason: str) -> None:
        """The status row says something else now."""
        self._put(connection_state_changed, WebSocketState, state=state, before=before, reason=reason)

    def close(self, within: float) -> None:
        """Send what waits, for so many seconds at most. Blocks."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None or not (self._busy or self._next_is_there()), within)
            self._closed = True
            self._changed.notify_all()

    def _put(self, signal: Signal, sender: type, **arguments: Any) -> None:
        with self._changed:
            if signal.has_listeners(sender):
                self._waiting.append((signal, sender, arguments))
                self._begin(signal, sender)

    def _begin(self, signal: Signal, sender: type) -> None:
        if self._thread is None and signal.has_listeners(sender) and not self._closed:
            self._thread = threading.Thread(target=self._run, name="mirror-signals", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _next_is_there(self) -> bool:
        return bool(self._waiting) or self._newest > self._told

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._next_is_there())
                if self._closed:
                    return
                self._busy = True
                if self._waiting:
                    signal, sender, arguments = self._waiting.popleft()
                else:
                    signal, sender = changes_committed, FeedChange
                    arguments = {"first_seq": self._told + 1, "last_seq": self._newest}
                    self._told = self._newest
            signal.send_robust(sender, **arguments)
            # What a listener has opened is not kept for the next, which may be an hour away.
            connections.close_all()
