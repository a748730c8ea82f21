"""The database's clock: what several hosts compare must not be their own."""

from datetime import UTC, datetime

from django.db import connection


def database_now() -> datetime:
    """The database server's time, UTC; inside a transaction still the time of this statement."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = cursor.fetchone()[0]
            return now.astimezone(UTC)
        cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
        return datetime.fromisoformat(cursor.fetchone()[0]).replace(tzinfo=UTC)
