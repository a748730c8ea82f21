"""No request's body is larger, or takes longer, than any honest one: refused before Django has read it.

Under ASGI Django takes a body whole, to a file on disk where it is large, before it asks what it is for; nothing
between here and the socket says how much, or how slowly.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# The largest honest body is a reason of 1,000 characters or an admin form; Django's own limit is 2.5 MiB of fields.
MAX_BODY_BYTES = 1_048_576
# For the whole of it, from the end of the headers.
BODY_SECONDS = 30.0


class _RefusedBodyError(Exception):
    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class BoundedBodies:
    """An ASGI application around another. 413 for a body over `limit` bytes, 408 for one not there in `seconds`."""

    def __init__(self, application: Application, *, limit: int = MAX_BODY_BYTES, seconds: float = BODY_SECONDS) -> None:
        self._application = application
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            first = await self._whole_body(scope, receive)
        except _RefusedBodyError as refused:
            await _refuse(refused, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:  # what still comes is the client's leaving
                return await receive()
            given = True
            return first

        await self._application(scope, replay, send)

    async def _whole_body(self, scope: Scope, receive: Receive) -> Message:
        """One message with the whole body; or what came in its place, when the client has left."""
        if _told_length(scope) > self._limit:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    body += message.get("body", b"")
                    if len(body) > self._limit:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return {"type": "http.request", "body": bytes(body), "more_body": False}
        except TimeoutError:
            detail = f"The body did not come within {self._seconds:g} s."
            raise _RefusedBodyError(HTTPStatus.REQUEST_TIMEOUT, "too_slow", detail) from None

    def _too_large(self) -> _RefusedBodyError:
        detail = f"A body has {self._limit} bytes at most."
        return _RefusedBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def _told_length(scope: Scope) -> int:
    """The `Content-Length`; 0 where there is none that could be one, for the server has looked at it already."""
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(told) if told.isdigit() and len(told) < 20 else 0


async def _refuse(refused: _RefusedBodyError, send: Send) -> None:
    body = json.dumps({"detail": refused.detail, "code": refused.code}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"private, no-store"),
        # What is left of the body is not read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
