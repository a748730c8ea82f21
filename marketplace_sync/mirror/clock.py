"""The database's clock: what several hosts compare must not be their own."""

from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Q

from marketplace_sync.engine.liveness import AHEAD_SECONDS

# An expression for it; inside a transaction still the time of the statement.
NOW = {"postgresql": "clock_timestamp()", "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')"}


def database_now() -> datetime:
    """The database server's time, UTC; inside a transaction still the time of this statement."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {NOW[connection.vendor]}", ())
        return as_moment(cursor.fetchone()[0])


def as_moment(told: datetime | str) -> datetime:
    """What `NOW` gave, as an aware `datetime`, UTC."""
    return told.astimezone(UTC) if isinstance(told, datetime) else datetime.fromisoformat(told).replace(tzinfo=UTC)


def within(column: str, now: datetime, seconds: float) -> Q:
    """Select the rows whose time is in the last `seconds`. A time ahead of the clock is not: it would stay for ever."""
    return Q(**{f"{column}__gte": now - timedelta(seconds=seconds)}) & not_ahead(column, now)


def not_ahead(column: str, now: datetime) -> Q:
    """Select the rows whose time is believable: at most `AHEAD_SECONDS` ahead of `now`."""
    return Q(**{f"{column}__lte": now + timedelta(seconds=AHEAD_SECONDS)})
