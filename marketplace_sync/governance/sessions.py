"""A person's session, to read: who it is, and nothing is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http import HttpRequest


class ReadSession(dict[str, Any]):
    """A copy of a session's data for Django's `get_user`.

    That deletes a session whose password has changed since, and renews one signed with an old secret. Both are writes,
    which fail or wait where the database takes none; the login page does them at the next visit.
    """

    def flush(self) -> None:
        """Forget the data of this copy."""
        self.clear()

    def cycle_key(self) -> None:
        """Leave the session's key as it is."""


@contextmanager
def only_read(request: HttpRequest) -> Iterator[None]:
    """Have whoever asks for the user of `request` meanwhile read its session only."""
    session = getattr(request, "session", None)
    if session is None:
        yield
        return
    request.session = ReadSession(session.items())  # type: ignore[assignment]
    try:
        yield
    finally:
        request.session = session
