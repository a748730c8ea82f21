"""The change feed over a WebSocket: `WS /ws/changes/` of INTERFACE.md.

Every refusal is said by a close code and a reason after the handshake, for the page in a browser sees no HTTP status.
What clients send is not looked at.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from django.db import Error

from marketplace_sync.live.door import (
    GONE,
    SERVER_FAULT,
    TOO_SLOW,
    UNKNOWN,
    Handshake,
    SubscriptionRefusedError,
    let_in,
    read_request,
)
from marketplace_sync.live.feed import FeedGoneError
from marketplace_sync.live.follower import Follower, TooSlowError
from marketplace_sync.live.hub import Hub, Subscriber

log = structlog.get_logger(__name__)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A control frame takes 125 bytes, two of them for the code.
_MAX_REASON_BYTES = 123


class FeedConsumer:
    """An ASGI application for one path. All connections of a process share its hub.

    Not a consumer class of Channels: those subscribe each connection to the channel layer, and fail with it.
    """

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub = hub or Hub()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection until either side ends it."""
        await receive()  # that it would like to connect
        refused: SubscriptionRefusedError | None = None
        try:
            request = read_request(scope)
            shown, actor = await self.hub.clients_lane.run(let_in, request)
        except SubscriptionRefusedError as fault:
            refused = fault
        except Error as fault:
            refused = _no_database(fault)
        with suppress(OSError):  # it has left already
            await send({"type": "websocket.accept"})
            if refused is None:
                async with self.hub.seated(shown) as seat:
                    refused = await self._serve(request, seat, receive, send)
                if refused is None:
                    return
                log.info("feed_client_closed", actor=actor.ident, code=refused.code, reason=refused.reason)
            await self._close(send, refused)

    async def _serve(
        self, request: Handshake, seat: Subscriber, receive: Receive, send: Send
    ) -> SubscriptionRefusedError | None:
        """Send what is wanted until there is a reason to close, or `None`: the client has left."""

        async def send_text(text: str) -> None:
            try:
                await send({"type": "websocket.send", "text": text})
            except RuntimeError as fault:
                # The server has closed it meanwhile, for a missed pong say.
                raise ConnectionAbortedError(str(fault)) from fault

        follower = Follower(self.hub, seat, request.wanted, send_text)
        following = asyncio.create_task(follower.follow(request.after), name="feed client")
        listening = asyncio.create_task(_until_gone(receive), name="feed client leaves")
        try:
            await asyncio.wait((following, listening, seat.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone, over = listening.done(), following.done()
            following.cancel()
            listening.cancel()
            await asyncio.wait((following, listening))
        fault = None if following.cancelled() else following.exception()
        if gone:
            return None
        if over and fault is not None:
            return _reason(fault)
        if seat.ended.result():
            return SubscriptionRefusedError(UNKNOWN, "The key or the session is no longer valid.")
        return SubscriptionRefusedError(SERVER_FAULT, "The server failed; come back.")

    async def _close(self, send: Send, why: SubscriptionRefusedError) -> None:
        """Say why and close. A client that does not read is cut off when it has not taken even that in time."""
        if why.code == TOO_SLOW:
            asyncio.get_running_loop().call_later(self.hub.limits.farewell, _cut, send)
        reason = why.reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        with suppress(OSError, RuntimeError):  # it has left, or did not take it
            async with asyncio.timeout(self.hub.limits.farewell):
                await send({"type": "websocket.close", "code": why.code, "reason": reason})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _reason(fault: BaseException) -> SubscriptionRefusedError | None:
    """Why a client can't be followed up any more; `None`: it has left."""
    match fault:
        case FeedGoneError():
            return SubscriptionRefusedError(GONE, str(fault))
        case TooSlowError():
            return SubscriptionRefusedError(TOO_SLOW, "Reads too slowly; come back with the last number seen.")
        case Error():
            return _no_database(fault)
        case OSError():
            return None
    log.error("feed_client_failed", exc_info=fault)
    return SubscriptionRefusedError(SERVER_FAULT, "The server failed; come back.")


def _no_database(fault: Error) -> SubscriptionRefusedError:
    log.warning("feed_client_without_database", reason=str(fault).strip())
    return SubscriptionRefusedError(SERVER_FAULT, "The database does not answer; come back.")


def _cut(send: Send) -> None:
    """End a connection at once, where the server lets us: ASGI can't, and one that does not read would stay for ever.

    uvicorn waits with its close until all was taken; its `send` is a method of the connection, which has a transport.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    abort = getattr(transport, "abort", None)
    if callable(abort):
        abort()
