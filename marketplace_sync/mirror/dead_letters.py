"""Dead letters: what was refused, kept so that a person can see it, and counted when it comes again (law 6)."""

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
# One that was replayed and comes again is open again; one that a person discarded stays discarded.
_SAVE = (
    f"INSERT INTO {DeadLetter._meta.db_table} AS held ({', '.join(_COLUMNS)}) VALUES %s "
    "ON CONFLICT (source, digest) DO UPDATE SET "
    "count = held.count + excluded.count, last_seen_at = excluded.last_seen_at, "
    "state = CASE WHEN held.state = 'replayed' THEN 'open' ELSE held.state END"
)
_ROW = f"({', '.join(['%s'] * len(_COLUMNS))})"
# Rows of one statement; SQLite takes 2,520. Row by row it asks for the interpreter's lock twice each time: beside a
# busy event loop the 4,000 of a listing whose rows are all refused kept the file locked for 21 s, where 0.2 will do.
_AT_ONCE = 500


def save_dead_letters(letters: Sequence[RefusedInput], now: datetime) -> None:
    """Keep `letters`; identical ones (same source, same bytes) count up."""
    if not letters:
        return
    at = connection.ops.adapt_datetimefield_value(now)
    # PostgreSQL changes no row twice in one statement.
    times = Counter((letter.source, letter.digest) for letter in letters)
    first = {(letter.source, letter.digest): letter for letter in reversed(letters)}
    rows = [
        (
            letter.source,
            letter.refusal.code,
            redact(letter.refusal.field)[:255],
            redact(letter.refusal.reason)[:500],
            redact(letter.refusal.kind)[:64],
            redact(letter.refusal.key or "")[:255],
            letter.head,
            letter.size,
            letter.digest,
            count,
            DeadLetter.State.OPEN,
            at,
            at,
        )
        for same, count in times.items()
        for letter in (first[same],)
    ]
    with connection.cursor() as cursor:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            cursor.execute(_SAVE % ", ".join([_ROW] * len(some)), list(chain.from_iterable(some)))


def recent_rate(within: timedelta = timedelta(hours=1)) -> dict[str, int]:
    """Different dead letters that came, for the first time or again, in the last hour (or `within`), by code.

    One that comes again and again is one here: how often is in its `count`, and in the total `rejected`.
    """
    now = database_now()
    recent = DeadLetter.objects.filter(not_ahead("last_seen_at", now), last_seen_at__gte=now - within)
    return dict(recent.order_by().values_list("code").annotate(Count("id")).order_by("code"))


def find_dead_letter(dead_letter_id: int) -> DeadLetter | None:
    """The dead letter of that number, if it is still kept."""
    return DeadLetter.objects.filter(pk=dead_letter_id).first()


def mark_replayed(lease: Lease, dead_letter_id: int) -> None:
    """What it told has been settled. One that was discarded meanwhile stays discarded."""
    with lease.writing():
        DeadLetter.objects.filter(pk=dead_letter_id, state=DeadLetter.State.OPEN).update(
            state=DeadLetter.State.REPLAYED
        )
