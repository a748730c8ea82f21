"""Send Django signals for what the daemon does, in a thread that nothing waits for (see `signals`)."""

import threading
from collections import deque
from typing import Any

from django.db import connections
from django.dispatch import Signal

from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.models import FeedChange, SyncRun, WebSocketState
from marketplace_sync.signals import changes_committed, connection_state_changed, removals_held

# Signals that may wait; the oldest is dropped. There are a few per minute, so listeners this far behind never catch up.
MAX_WAITING = 1000


class FeedAnnouncer(DaemonObserver):
    """Send one signal per new state, one per run with removals on hold, and one for the changes since the last signal.

    `seq` is the newest feed number so far. The thread begins with the first signal that has a listener. It ends with
    the process, whatever a listener is doing.
    """

    def __init__(self, seq: int) -> None:
        self._announced = seq
        self._newest = seq
        self._waiting: deque[tuple[Signal, type, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._closed = self._busy = False
        self._thread: threading.Thread | None = None

    def feed_grown(self, seq: int) -> None:
        with self._changed:
            if seq > self._newest:
                self._newest = seq
                self._begin(changes_committed, FeedChange)

    def removals_held(self, run_id: int, count: int, reason: str) -> None:
        self._put(removals_held, SyncRun, run_id=run_id, count=count, reason=reason)

    def state_written(self, state: str, before: str, reason: str) -> None:
        self._put(connection_state_changed, WebSocketState, state=state, before=before, reason=reason)

    def close(self, within: float) -> None:
        """Send what waits, for up to `within` seconds. Blocks."""
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
        return bool(self._waiting) or self._newest > self._announced

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed or self._next_is_there())
                if self._closed:
                    return
                self._busy = True
                signal, sender, arguments = self._next()
            signal.send_robust(sender, **arguments)
            # A connection that a listener opened is not kept for the next signal, which may be an hour away.
            connections.close_all()

    def _next(self) -> tuple[Signal, type, dict[str, Any]]:
        if self._waiting:
            return self._waiting.popleft()
        first, self._announced = self._announced + 1, self._newest
        return changes_committed, FeedChange, {"first_seq": first, "last_seq": self._newest}
