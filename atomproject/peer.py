"""Restore the address of a connection's peer, which the web server replaces by `X-Forwarded-For`.

By default uvicorn trusts that header from 127.0.0.1 and overwrites the peer's address with it. The proxies to
trust are one setting, `TRUSTED_PROXIES`, and `marketplace_sync.client_address` reads the header.
"""

from typing import Any

from atomproject.bodies import Application, Receive, Scope, Send


class RealPeer:
    """ASGI middleware that sets `scope["client"]` to the peer of the connection."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn's `send` is a method of the connection, which has a transport. ASGI itself gives no access to it.
        transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
        peer = transport.get_extra_info("peername") if transport is not None else None
        if isinstance(peer, tuple):
            scope = {**scope, "client": (peer[0], peer[1])}
        elif peer is not None:  # a Unix socket, which has no address
            scope = {**scope, "client": None}
        await self._application(scope, receive, send)
