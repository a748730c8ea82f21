"""The peer of a connection, whatever the web server has made of `X-Forwarded-For`.

uvicorn believes that header from 127.0.0.1 unless it is started otherwise, and writes its reading over the peer's
address. Who may be believed is one setting, `TRUSTED_PROXIES`, and `marketplace_sync.client_address` reads the header.
"""

from typing import Any

from atomproject.bodies import Application, Receive, Scope, Send


class RealPeer:
    """An ASGI application around another, which sees in `scope["client"]` who is connected."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn's `send` is a method of the connection, which has a transport; ASGI itself has no name for it.
        transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
        peer = transport.get_extra_info("peername") if transport is not None else None
        if isinstance(peer, tuple):
            scope = {**scope, "client": (peer[0], peer[1])}
        elif peer is not None:  # a Unix socket, which has a name at most
            scope = {**scope, "client": None}
        await self._application(scope, receive, send)
