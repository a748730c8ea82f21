"""The change feed over a WebSocket, at `/ws/changes/`.

Every refusal is a close code and a reason after the handshake, because a page in a browser cannot see an HTTP status.
Messages from clients are ignored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from django.db import Error

from marketplace_sync.live.credentials import authenticate
from marketplace_sync.live.delivery import Delivery, TooSlowError
from marketplace_sync.live.feed import FeedGoneError
from marketplace_sync.live.handshake import (
    GONE,
    SERVER_ERROR,
    TOO_SLOW,
    UNKNOWN,
    Handshake,
    SubscriptionRefusedError,
    read_handshake,
)
from marketplace_sync.live.hub import Hub, Subscriber

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A control frame carries 125 bytes, two of them for the code.
_MAX_REASON_BYTES = 123


class FeedConsumer:
    """An ASGI application for one path. All connections of a process share its hub.

    It is not a consumer class of Channels: those subscribe each connection to the channel layer, and fail with it.
    """

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub = hub or Hub()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection until either side ends it."""
        await receive()  # websocket.connect
        refused: SubscriptionRefusedError | None = None
        try:
            handshake = read_handshake(scope)
            credential, actor = await self.hub.client_thread.run(authenticate, handshake)
        except SubscriptionRefusedError as error:
            refused = error
        except Error as error:
            refused = _database_unavailable(error)
        with suppress(OSError):  # the client has already disconnected
            await send({"type": "websocket.accept"})
            if refused is None:
                async with self.hub.subscribe(credential) as subscriber:
                    refused = await self._serve(handshake, subscriber, receive, send)
                if refused is None:
                    return
                log.info("feed_client_closed", actor=actor.ident, code=refused.code, reason=refused.reason)
            await self._close(send, refused)

    async def _serve(
        self, handshake: Handshake, subscriber: Subscriber, receive: Receive, send: Send
    ) -> SubscriptionRefusedError | None:
        """Send the changes until there is a reason to close; return it, or `None` if the client has disconnected."""

        async def send_text(text: str) -> None:
            try:
                await send({"type": "websocket.send", "text": text})
            except RuntimeError as error:
                # The server has closed the connection meanwhile, for example for a missed pong.
                raise ConnectionAbortedError(str(error)) from error

        delivery = Delivery(self.hub, subscriber, handshake.filter, send_text)
        sending = asyncio.create_task(delivery.run(handshake.after), name="feed client")
        receiving = asyncio.create_task(_until_disconnect(receive), name="feed client disconnects")
        try:
            await asyncio.wait((sending, receiving, subscriber.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnected, stopped = receiving.done(), sending.done()
            sending.cancel()
            receiving.cancel()
            await asyncio.wait((sending, receiving))
        error = None if sending.cancelled() else sending.exception()
        if disconnected:
            return None
        if stopped and error is not None:
            return _close_reason(error)
        if subscriber.ended.result():
            return SubscriptionRefusedError(UNKNOWN, "The key or the session is no longer valid.")
        return SubscriptionRefusedError(SERVER_ERROR, "The server failed. Reconnect.")

    async def _close(self, send: Send, why: SubscriptionRefusedError) -> None:
        """Close with a code and a reason. Abort a slow client that does not take even these in time."""
        if why.code == TOO_SLOW:
            asyncio.get_running_loop().call_later(self.hub.limits.close_timeout, _abort, send)
        reason = why.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        with suppress(OSError, RuntimeError):  # the client has disconnected, or did not take it in time
            async with asyncio.timeout(self.hub.limits.close_timeout):
                await send({"type": "websocket.close", "code": why.code, "reason": reason})


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _close_reason(error: BaseException) -> SubscriptionRefusedError | None:
    """Return why this error ends the subscription; `None` if the client has disconnected."""
    match error:
        case FeedGoneError():
            return SubscriptionRefusedError(GONE, str(error))
        case TooSlowError():
            return SubscriptionRefusedError(
                TOO_SLOW, "The client reads too slowly. Reconnect with the last number received."
            )
        case Error():
            return _database_unavailable(error)
        case OSError():
            return None
        case _:
            log.error("feed_client_failed", exc_info=error)
            return SubscriptionRefusedError(SERVER_ERROR, "The server failed. Reconnect.")


def _database_unavailable(error: Error) -> SubscriptionRefusedError:
    log.warning("feed_client_without_database", reason=str(error).strip())
    return SubscriptionRefusedError(SERVER_ERROR, "The database does not answer. Reconnect.")


def _abort(send: Send) -> None:
    """Abort a connection where the server allows it. ASGI cannot, and a client that never reads would stay for ever.

    uvicorn closes only after everything was taken. Its `send` is a method of the connection, which has a transport.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    abort = getattr(transport, "abort", None)
    if callable(abort):
        abort()
