"""Where each WebSocket path leads."""

from collections.abc import Mapping
from typing import Any

from channels.routing import URLRouter
from django.urls import path, re_path

from marketplace_sync.live.consumers import FeedConsumer, Receive, Send


async def nowhere(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Refuse a path that leads nowhere: HTTP 403, all that a handshake can say."""
    await receive()
    await send({"type": "websocket.close"})


def websockets(feed: FeedConsumer) -> URLRouter:
    """The ASGI application for WebSockets. `feed` is the process's only one."""
    # Django's routes are typed for its views, Channels puts applications there.
    follow: Any = feed
    refuse: Any = nowhere
    return URLRouter([path("ws/changes/", follow), re_path("", refuse)])
