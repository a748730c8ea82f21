"""One example per answer, for the schema."""

from typing import Any

_AT = "2026-01-15T10:30:00Z"

LISTED_SKILL: dict[str, Any] = {
    "skill_id": "550e8400-e29b-41d4-a716-446655440000", "name": "Send Email", "description": "Sends an email.",
    "version": "1.0.0", "command": "python", "python_packages": ["pandas>=1.3"], "npm_packages": [],
    "tags": ["email"], "metadata": {"author": "Ada"}, "category": "automation", "average_rating": 4.5,
    "rating_count": 42, "extra": {}, "remote_created_at": "2026-01-01T00:00:00Z", "remote_updated_at": _AT,
    "rating_at": _AT, "synced_at": _AT,
}  # fmt: skip
SKILL = {**LISTED_SKILL, "code": "def send_email(...): ..."}
CATEGORY: dict[str, Any] = {
    "name": "automation", "description": "Skills that run without supervision.", "icon_url": "", "skill_count": 120,
    "remote_created_at": "2026-01-01T00:00:00Z", "remote_updated_at": _AT,
}  # fmt: skip
COMMAND: dict[str, Any] = {
    "id": 7, "action": "reconnect", "args": {}, "state": "done", "result": {"detail": "A new stream is open."},
    "reason": "Moving the proxy.", "requested_by": "agent:watcher", "requested_at": _AT, "accepted_at": _AT,
    "finished_at": "2026-01-15T10:30:01Z",
}  # fmt: skip
PENDING_COMMAND = {**COMMAND, "state": "pending", "result": None, "accepted_at": None, "finished_at": None}
RUN: dict[str, Any] = {
    "id": 31, "reason": "poll", "state": "done", "started_at": _AT, "finished_at": "2026-01-15T10:31:00Z",
    "pages_done": 15, "pages_total": 15, "listed": 1500, "created": 3, "updated": 12, "unchanged": 1485, "stale": 0,
    "refused": 0, "removed": 1, "held_count": 0, "held_reason": "", "is_clean": True, "unclean_reason": "",
    "error": "", "degraded": False, "listed_categories": 12, "refused_categories": 0, "by_row": False,
}  # fmt: skip
RUN_ON_HOLD = {
    **RUN, "state": "held", "removed": 0, "held_count": 2, "held_reason": "the listing is empty",
    "held_skill_ids": ["s-1", "s-2"],
}  # fmt: skip
_LISTED_ON_HOLD = {name: value for name, value in RUN_ON_HOLD.items() if name != "held_skill_ids"}
SYNC_STATUS = {"running": None, "last": RUN, "last_done": RUN, "held": _LISTED_ON_HOLD, "runs": {"done": 30, "held": 1}}
DEAD_LETTER: dict[str, Any] = {
    "id": 5, "source": "stream", "code": "missing", "field": "name", "reason": "required", "kind": "skill_update",
    "key": "s-1", "size": 71, "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "count": 2, "state": "open", "first_seen_at": _AT, "last_seen_at": _AT,
}  # fmt: skip
DEAD_LETTER_DETAIL = {**DEAD_LETTER, "head": '{"type": "skill_update", "data": {"skill_id": "s-1"}}'}
DISCARDED = {**DEAD_LETTER_DETAIL, "state": "discarded"}
AUDIT_ROW: dict[str, Any] = {
    "id": 12, "at": _AT, "actor": "agent:watcher", "actor_kind": "agent", "verb": "reconnect", "target": "",
    "reason": "Moving the proxy.", "allowed": True, "outcome": "performed", "required": "AUTONOMOUS",
    "actual": "AUTONOMOUS", "origin": "api 127.0.0.1", "details": {}, "command_id": 7,
}  # fmt: skip
CHANGE: dict[str, Any] = {
    "seq": 101, "kind": "rating_changed", "key": "s-1", "at": _AT, "source": "stream",
    "data": {"average_rating": 4.6, "rating_count": 43},
}  # fmt: skip
STATUS: dict[str, Any] = {
    "state": "live", "connected": True, "enabled": True, "ws_url": "wss://api.atomsaas.com/ws",
    "last_connected_at": _AT, "last_message_at": _AT, "disconnect_reason": "", "reconnect_attempts": 0,
    "consecutive_failures": 0, "fallback_to_polling": False, "fallback_started_at": None,
    "next_ws_attempt_at": None, "rate_limit_messages_per_sec": 100,
    "totals": {"received": 9, "applied": 7, "unchanged": 1, "stale": 1, "rejected": 0, "shed": 0},
    "daemon": {"alive": True, "name": "host:4711", "heartbeat_at": _AT, "standby": 0},
}  # fmt: skip

# By status code: when it is answered, and an example.
ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "400": ("A parameter, a field or the body is invalid; `field` names it.",
            {"detail": "min_rating: Enter a number.", "code": "invalid", "field": "min_rating",
             "fields": {"min_rating": ["Enter a number."]}}),
    "401": ("No login, or the key is not valid.",
            {"detail": "Log in, or send a key: Authorization: Bearer <key>.", "code": "not_authenticated"}),
    "403": ("The policy does not allow it, or a request of a session has no CSRF token.",
            {"detail": "This needs maturity AUTONOMOUS; you are STUDENT.", "code": "maturity_required",
             "required": "AUTONOMOUS", "actual": "STUDENT"}),
    "404": ("No such object, or no such page.", {"detail": "Not found.", "code": "not_found"}),
    "405": ("The method is not allowed.", {"detail": 'Method "PUT" not allowed.', "code": "method_not_allowed"}),
    "409": ("The state of the object does not allow it.",
            {"detail": "Dead letter 5 is discarded already.", "code": "not_possible"}),
    "410": ("`after` is older than what is kept, or ahead of the newest: list the catalogue again.",
            {"detail": "The feed begins at 901; list the catalogue again.", "code": "gone"}),
    "413": ("The body is too large.",
            {"detail": "The body must be at most 1048576 bytes.", "code": "too_large"}),
    "415": ("The body is not JSON.",
            {"detail": 'Unsupported media type "text/plain" in request.', "code": "unsupported_media_type"}),
    "429": ("Too many requests, more than 4 at the same time (`too_many_at_once`), or too many invalid keys. "
            "`Retry-After` is the time to wait, in seconds.",
            {"detail": "Request was throttled. Expected available in 1 second.", "code": "throttled"}),
}  # fmt: skip
