"""Note when a key was used or refused.

Readers must be served while the database is read-only or locked by another program. So a note never waits for a lock
and never fails a request. A note that could not be written stays in this process and is written with a later one.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import structlog
from django.db import Error
from django.db.models import Q
from django.utils import timezone

from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.models import AgentKey

log = structlog.get_logger(__name__)

# A key in use costs one write per minute. A refused key that is tried for ever costs one audit row per hour: no audit
# row is ever deleted for a year, and a stranger must not fill the table.
USE_NOTED_EVERY = timedelta(minutes=1)
REFUSAL_NOTED_EVERY = timedelta(hours=1)
# In the audit only: the client with such a key learns only that it is not valid.
REFUSED_KEY_VERB = "use_key"

# Notes of either kind in memory. Further keys are not noted.
_MOST_KEPT = 1000
# After a failure the next attempt to write comes this much later.
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRefusal:
    """A client used a key that was refused. `why`: "expired", "revoked" or "of a disabled agent"."""

    actor: Actor
    why: str
    origin: str
    at: datetime


class KeyNotes:
    """The notes of this process that are not in the database yet."""

    def __init__(self) -> None:
        self._used: dict[int, datetime] = {}
        self._refused: dict[int, KeyRefusal] = {}
        self._lock = Lock()
        self._writing = Lock()
        self._not_before = 0.0

    def used(self, key: AgentKey, at: datetime) -> None:
        """Note that this key was used, if a note is due; write all notes."""
        if _due(key.last_used_at, at, USE_NOTED_EVERY):
            self._keep({key.pk: at}, {})
        self.write()

    def refused(self, key: AgentKey, refusal: KeyRefusal) -> None:
        """Note that this key was refused, if a note is due; write all notes."""
        if _due(key.last_refused_at, refusal.at, REFUSAL_NOTED_EVERY):
            self._keep({}, {key.pk: refusal})
        self.write()

    def write(self) -> None:
        """Write all notes; keep them if the database accepts no writes at the moment."""
        if not (self._used or self._refused) or time.monotonic() < self._not_before:
            return
        if not self._writing.acquire(blocking=False):  # another request is writing
            return
        try:
            with self._lock:
                used, self._used = self._used, {}
                refused, self._refused = self._refused, {}
            try:
                with dialect().without_waiting():
                    _write(used, refused)
            except Error as error:
                self._not_before = time.monotonic() + _RETRY_SECONDS
                self._keep(used, refused)
                if refused:
                    log.warning("key_refusals_not_audited", waiting=len(self._refused), reason=str(error).strip())
        finally:
            self._writing.release()

    def _keep(self, used: Mapping[int, datetime], refused: Mapping[int, KeyRefusal]) -> None:
        with self._lock:
            for key, at in used.items():
                if key in self._used or len(self._used) < _MOST_KEPT:
                    self._used[key] = max(at, self._used.get(key, at))
            for key, refusal in refused.items():
                if key not in self._refused and len(self._refused) < _MOST_KEPT:
                    self._refused[key] = refusal


def _due(last: datetime | None, at: datetime, every: timedelta) -> bool:
    """Return whether a note is due. A time ahead of the clock, which was set back since, does not count as a note."""
    return last is None or not at - every < last <= at


def _write(used: Mapping[int, datetime], refused: Mapping[int, KeyRefusal]) -> None:
    # In order of the keys: two processes that note the same keys must not deadlock.
    for key, at in sorted(used.items()):
        AgentKey.objects.filter(pk=key).update(last_used_at=at)
    for key, refusal in sorted(refused.items()):
        # As `_due`.
        noted = Q(last_refused_at__gt=refusal.at - REFUSAL_NOTED_EVERY, last_refused_at__lte=refusal.at)
        unnoted = Q(last_refused_at__isnull=True) | ~noted
        if AgentKey.objects.filter(unnoted, pk=key).update(last_refused_at=refusal.at):
            _audit(key, refusal)


def _audit(key: int, refusal: KeyRefusal) -> None:
    details: dict[str, Any] = {"why": refusal.why}
    if timezone.now() - refusal.at > timedelta(seconds=_RETRY_SECONDS):
        details["shown_at"] = refusal.at.isoformat()
    record(
        refusal.actor,
        verb=REFUSED_KEY_VERB,
        outcome=Outcome.REFUSED,
        actual=refusal.actor.maturity,
        required="",
        target=f"key {key}",
        origin=refusal.origin,
        details=details,
    )


notes = KeyNotes()
