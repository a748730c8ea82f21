"""Columns of our own."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.db import models

# The type checker wants to know the types of a CharField; Django's own class does not take them.
if TYPE_CHECKING:
    _Text = models.CharField[Any, Any]
else:
    _Text = models.CharField


class WrittenJSONField(models.JSONField):
    """JSON that only the mirror writes, by its encoder: no database has to look whether it is any.

    Django has SQLite parse each text for that when it is written, a new skill's twice, for the feed has it whole: 3 of
    the 44 us that a new skill takes it. (PostgreSQL's `jsonb` is parsed to be stored.)
    """

    def db_check(self, connection: Any) -> None:
        """No CHECK."""


class ConnectionStateField(_Text):
    """The connection's state, whose `suspended` is stored as `resting`; both are read as `suspended`.

    The release before this one fails on a state that it does not know, and may read this row while an upgrade is under
    way or after a return to it. The next release stores `suspended`, and a plain column takes this field's place.
    """

    _STORED = MappingProxyType({"suspended": "resting"})
    _READ = MappingProxyType({"resting": "suspended"})

    def deconstruct(self) -> Any:
        """Return the field as migrations see it: a plain column of text."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        """Return the state by its present name."""
        return None if value is None else self._READ.get(value, value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the state by the name that every release knows."""
        prepared = super().get_prep_value(value)
        return self._STORED.get(prepared, prepared)
