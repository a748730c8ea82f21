"""The admin pages. They show the mirror and turn buttons into actions of `governance`; they contain no other logic."""

from marketplace_sync.admin import (  # noqa: F401 - importing registers them
    agents,
    audit,
    catalogue,
    commands,
    dead_letters,
    feed,
    overview,
    runs,
    websocket,
)
