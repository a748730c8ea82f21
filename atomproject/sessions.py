"""Django's sessions in the database, looked up by such keys alone as Django makes."""

from typing import Any

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Anybody can send a cookie whose quoted value holds a NUL, which PostgreSQL refuses: each page was a 500."""

    def _validate_session_key(self, key: Any) -> bool:
        return isinstance(key, str) and len(key) >= 8 and key.isascii() and key.isalnum()
