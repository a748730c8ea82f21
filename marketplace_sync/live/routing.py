"""The WebSocket paths."""

from collections.abc import Mapping
from typing import Any

from channels.routing import URLRouter
from django.urls import path, re_path

from marketplace_sync.live.consumers import FeedConsumer, Receive, Send


async def refuse_path(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Refuse an unknown path. A handshake can answer nothing but HTTP 403."""
    await receive()
    await send({"type": "websocket.close"})


def websockets(feed: FeedConsumer) -> URLRouter:
    """Return the ASGI application for WebSockets. `feed` is the only consumer of this process."""
    # Django's routes are typed for views; Channels uses them for applications.
    changes: Any = feed
    unknown: Any = refuse_path
    return URLRouter([path("ws/changes/", changes), re_path("", unknown)])
