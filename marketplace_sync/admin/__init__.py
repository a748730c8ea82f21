"""The admin pages: a door. They show what is there, and turn buttons into actions of `governance`; no logic is here."""

from marketplace_sync.admin import (  # noqa: F401 - importing registers them
    agents,
    audit,
    catalogue,
    dashboard,
    dead_letters,
    feed,
    requests,
    runs,
    websocket,
)
