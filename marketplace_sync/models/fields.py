"""Columns of our own."""

from typing import Any

from django.db import models


class WrittenJSONField(models.JSONField):
    """JSON that only the mirror writes, by its encoder: no database has to look whether it is any.

    Django has SQLite parse each text for that when it is written, a new skill's twice, for the feed has it whole: 3 of
    the 44 us that a new skill takes it. (PostgreSQL's `jsonb` is parsed to be stored.)
    """

    def db_check(self, connection: Any) -> None:
        """No CHECK."""
