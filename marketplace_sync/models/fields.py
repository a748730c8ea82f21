"""Model fields of the mirror."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.db import models

# The type checker requires type arguments; Django's class accepts none at run time.
if TYPE_CHECKING:
    _Text = models.CharField[Any, Any]
else:
    _Text = models.CharField


class WrittenJSONField(models.JSONField):
    """A JSON column that only the mirror writes, with its encoder, so the database does not validate it.

    Django has SQLite parse each text when it is written. A new skill is parsed twice, since the feed has it too: 3 of
    the 44 µs that SQLite takes per new skill. (PostgreSQL parses `jsonb` in order to store it.)
    """

    def db_check(self, connection: Any) -> None:
        """Return no CHECK constraint."""


class ConnectionStateField(_Text):
    """The connection's state. `suspended` is stored as `resting`; both values are read as `suspended`.

    The release before this one fails on a state that it does not know. It may read the row during an upgrade, or after
    a return to it. The next release stores `suspended`, and a plain CharField replaces this field.
    """

    _STORED = MappingProxyType({"suspended": "resting"})
    _READ = MappingProxyType({"resting": "suspended"})

    def deconstruct(self) -> Any:
        """Return a plain CharField for migrations."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        """Return the state by its current name."""
        return None if value is None else self._READ.get(value, value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the state by the name that both releases know."""
        prepared = super().get_prep_value(value)
        return self._STORED.get(prepared, prepared)
