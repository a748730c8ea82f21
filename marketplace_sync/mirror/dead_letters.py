"""Dead letters: store refused input for a person to see, and count it when it comes again (law 6)."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain

from django.db import connection
from django.db.models import Count

from marketplace_sync.logs import redact
from marketplace_sync.mirror.arrived import RefusedInput
from marketplace_sync.mirror.clock import database_now, not_ahead
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.models import DeadLetter

_COLUMNS = (
    "source", "code", "field", "reason", "kind", "key", "head", "size", "digest", "count", "state",
    "first_seen_at", "last_seen_at",
)  # fmt: skip
# A replayed dead letter that comes again is open again; a discarded one stays discarded.
_SAVE = (
    f"INSERT INTO {DeadLetter._meta.db_table} AS stored ({', '.join(_COLUMNS)}) VALUES %s "
    "ON CONFLICT (source, digest) DO UPDATE SET "
    "count = stored.count + excluded.count, last_seen_at = excluded.last_seen_at, "
    "state = CASE WHEN stored.state = 'replayed' THEN 'open' ELSE stored.state END"
)
_ROW = f"({', '.join(['%s'] * len(_COLUMNS))})"
# Rows per statement; SQLite's maximum is 2,520. Row by row, SQLite's driver takes the interpreter's lock twice each
# time: beside a busy event loop, 4,000 refused rows kept the file locked for 21 s instead of 0.2.
_BATCH = 500


def save_dead_letters(refused: Sequence[RefusedInput], now: datetime) -> None:
    """Store refused input; count identical input (same source, same bytes) up instead."""
    if not refused:
        return
    at = connection.ops.adapt_datetimefield_value(now)
    # PostgreSQL cannot change a row twice in one statement.
    times = Counter((item.source, item.digest) for item in refused)
    first = {(item.source, item.digest): item for item in reversed(refused)}
    rows = [
        (
            item.source,
            item.refusal.code,
            redact(item.refusal.field)[:255],
            redact(item.refusal.reason)[:500],
            redact(item.refusal.kind)[:64],
            redact(item.refusal.key or "")[:255],
            item.head,
            item.size,
            item.digest,
            count,
            DeadLetter.State.OPEN,
            at,
            at,
        )
        for same, count in times.items()
        for item in (first[same],)
    ]
    with connection.cursor() as cursor:
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            cursor.execute(_SAVE % ", ".join([_ROW] * len(some)), list(chain.from_iterable(some)))


def recent_rate(within: timedelta = timedelta(hours=1)) -> dict[str, int]:
    """Return how many different dead letters came, first or again, in the last hour (or `within`), by code.

    A dead letter that comes repeatedly counts once here. Its `count` and the total `rejected` count every time.
    """
    now = database_now()
    recent = DeadLetter.objects.filter(not_ahead("last_seen_at", now), last_seen_at__gte=now - within)
    return dict(recent.order_by().values_list("code").annotate(Count("id")).order_by("code"))


def find_dead_letter(dead_letter_id: int) -> DeadLetter | None:
    """Return the dead letter with that id; `None` when there is none (any more)."""
    return DeadLetter.objects.filter(pk=dead_letter_id).first()


def mark_replayed(lease: Lease, dead_letter_id: int) -> None:
    """Mark a dead letter as replayed. One that was discarded meanwhile stays discarded."""
    with lease.writing():
        DeadLetter.objects.filter(pk=dead_letter_id, state=DeadLetter.State.OPEN).update(
            state=DeadLetter.State.REPLAYED
        )
