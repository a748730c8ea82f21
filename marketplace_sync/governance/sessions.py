"""Read a person's session without writing to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http import HttpRequest


class ReadSession(dict[str, Any]):
    """A copy of a session's data for Django's `get_user`.

    `get_user` deletes a session whose password has changed since, and renews one signed with an old secret. Both are
    writes, which fail or wait while the database accepts none; the login page does them at the next visit.
    """

    def flush(self) -> None:
        """Clear this copy."""
        self.clear()

    def cycle_key(self) -> None:
        """Leave the session's key as it is."""


@contextmanager
def only_read(request: HttpRequest) -> Iterator[None]:
    """Give `request` a session that is only read, for the time of the block."""
    session = getattr(request, "session", None)
    if session is None:
        yield
        return
    request.session = ReadSession(session.items())  # type: ignore[assignment]
    try:
        yield
    finally:
        request.session = session
