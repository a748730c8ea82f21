"""The database's clock: what several hosts compare must not be their own."""

from datetime import UTC, datetime

from django.db import connection

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
