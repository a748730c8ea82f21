"""Audit refused requests: one row each up to a limit, then one row that counts the rest.

No row is deleted for a year, so the rows that an actor without rights can cause are bounded: 30 per minute
(`refused_requests`), and one more with a count. This process counts those beyond the limit; if it is killed, only the
count is lost. The count is written when its actor has been quiet for `_QUIET` seconds, after a minute at the latest,
and at most once per minute and actor.
"""

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from django.db import Error, connections

from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.sliding_window import SlidingWindow

# Refused requests per minute and actor.
refused_requests = SlidingWindow(30, 60.0)

# The `verb` of a row that counts refused requests; its `details` are {"count", "seconds", "verbs"}.
FOLDED_VERB = "refused_requests"

_QUIET = 2.0
_ROW_EVERY = 60.0
_LOOK_EVERY = 0.5


@dataclass(slots=True)
class _Folded:
    """The refused requests of one actor that have no row of their own, with the last one's details."""

    actor: Actor
    actual: str
    required: str
    origin: str
    since: float
    last: float
    verbs: Counter[str] = field(default_factory=Counter)


class FoldedRefusals:
    """Count refused requests per actor, and write the counts. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, in_background: bool = False) -> None:
        self._clock = clock
        self._in_background = in_background
        self._lock = threading.Lock()
        self._folded: dict[str, _Folded] = {}
        self._written_at: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def add(self, actor: Actor, verb: str, *, actual: str, required: str, origin: str) -> None:
        """Count one refused request."""
        now = self._clock()
        with self._lock:
            folded = self._folded.setdefault(actor.ident, _Folded(actor, actual, required, origin, now, now))
            folded.actual, folded.required, folded.origin, folded.last = actual, required, origin, now
            folded.verbs[verb] += 1
            if self._in_background and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="refused requests", daemon=True)
                self._thread.start()

    def write_due(self, *, all_of_them: bool = False) -> None:
        """Write the counts that are due. Raises `django.db.Error` and keeps what was not written."""
        due = self._take_due(all_of_them)
        try:
            while due:
                _write(due[-1])
                due.pop()
        finally:
            for folded in due:
                self._put_back(folded)

    def clear(self) -> None:
        """Forget all counts."""
        with self._lock:
            self._folded.clear()
            self._written_at.clear()

    def _take_due(self, all_of_them: bool) -> list[_Folded]:
        now = self._clock()
        with self._lock:
            self._written_at = {who: at for who, at in self._written_at.items() if now - at < _ROW_EVERY}
            due = [
                who
                for who, folded in self._folded.items()
                if all_of_them
                or (who not in self._written_at and (now - folded.last >= _QUIET or now - folded.since >= _ROW_EVERY))
            ]
            self._written_at |= dict.fromkeys(due, now)
            return [self._folded.pop(who) for who in due]

    def _put_back(self, folded: _Folded) -> None:
        with self._lock:
            self._written_at.pop(folded.actor.ident, None)
            later = self._folded.setdefault(folded.actor.ident, folded)
            if later is not folded:
                later.verbs += folded.verbs
                later.since = folded.since

    def _run(self) -> None:
        """Write counts until none are left."""
        while True:
            time.sleep(_LOOK_EVERY)
            with suppress(Error):  # the counts are kept for the next attempt
                self.write_due()
            connections.close_all()
            with self._lock:
                if not self._folded:
                    self._thread = None
                    return

    def write_rest(self) -> None:
        """Write the remaining counts at the end of the process, if the database still answers."""
        with suppress(Error):
            self.write_due(all_of_them=True)


def _write(folded: _Folded) -> None:
    count = folded.verbs.total()
    record(
        folded.actor,
        verb=FOLDED_VERB,
        outcome=Outcome.REFUSED,
        actual=folded.actual,
        required=folded.required,
        target=f"{count} requests",
        origin=folded.origin,
        details={"count": count, "seconds": round(folded.last - folded.since, 1), "verbs": dict(folded.verbs)},
    )


folded_refusals = FoldedRefusals(in_background=True)
atexit.register(folded_refusals.write_rest)
