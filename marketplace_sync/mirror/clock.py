"""The database's clock. Hosts compare times by it, never by their own clocks."""

from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Q

from marketplace_sync.engine.liveness import AHEAD_SECONDS
from marketplace_sync.mirror.dialects import dialect


def database_now() -> datetime:
    """Return the database server's current time, UTC; inside a transaction too, it is the time of this statement."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {dialect().now}", ())
        return as_moment(cursor.fetchone()[0])


def as_moment(value: datetime | str) -> datetime:
    """Return a value of `Dialect.now` as an aware `datetime`, UTC."""
    return value.astimezone(UTC) if isinstance(value, datetime) else datetime.fromisoformat(value).replace(tzinfo=UTC)


def within(column: str, now: datetime, seconds: float) -> Q:
    """Select rows with a time in the last `seconds`. A time far ahead of the clock does not count."""
    return Q(**{f"{column}__gte": now - timedelta(seconds=seconds)}) & not_ahead(column, now)


def not_ahead(column: str, now: datetime) -> Q:
    """Select rows with a believable time: at most `AHEAD_SECONDS` ahead of `now`."""
    return Q(**{f"{column}__lte": now + timedelta(seconds=AHEAD_SECONDS)})
