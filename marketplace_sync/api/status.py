"""The answer of `GET /api/admin/websocket/status/`."""

from typing import Any
from urllib.parse import urlsplit

from marketplace_sync.conf import ConfigError, SyncConfig, load_config
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.mirror.status import status

_COLUMNS = (
    "state", "connected", "enabled", "last_connected_at", "last_message_at", "disconnect_reason",
    "reconnect_attempts", "consecutive_failures", "fallback_to_polling", "fallback_started_at", "next_ws_attempt_at",
)  # fmt: skip


def connection_status(settings: object) -> dict[str, Any]:
    """Return the state of the stream, judged by the daemon's heartbeat, and its configuration from `settings`."""
    try:
        config = load_config(settings)
    except ConfigError:  # `manage.py check` reports it; the daemon's state does not depend on it
        config = SyncConfig()
    now = status()
    return {
        **{name: getattr(now.row, name) for name in _COLUMNS},
        "ws_url": without_secrets(config.ws_url),
        "rate_limit_messages_per_sec": config.rate_limit,
        "totals": {name: getattr(now.row, name) for name in TOTALS},
        "daemon": {
            "alive": now.alive,
            "name": now.daemon,
            "heartbeat_at": now.heartbeat_at,
            "standby": now.standby,
        },
    }


def without_secrets(url: str) -> str:
    """Remove the query, the fragment and the login from a URL: the query contains the token (law 14)."""
    parts = urlsplit(url)
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()
