"""Limit the size and the duration of request bodies, before Django reads them.

Under ASGI Django reads the whole body, a large one to a file on disk, before it resolves the URL. Neither Django nor
uvicorn limits the size or the time.
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

# The largest legitimate body is a reason of 1,000 characters or an admin form; Django's own limit is 2.5 MiB of fields.
MAX_BODY_BYTES = 1_048_576
# For the whole body, from the end of the headers.
BODY_SECONDS = 30.0


class _RefusedBodyError(Exception):
    """The body is too large or too slow; `status`, `code` and `detail` make the response."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


class BoundedBodies:
    """ASGI middleware: answers 413 to a body over `limit` bytes, and 408 to one that takes over `seconds`."""

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
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:  # only the disconnect of the client can follow
                return await receive()
            replayed = True
            return first

        await self._application(scope, replay, send)

    async def _whole_body(self, scope: Scope, receive: Receive) -> Message:
        """Return one message with the whole body, or the disconnect of a client that left first."""
        if _content_length(scope) > self._limit:
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
            detail = f"The request body did not arrive within {self._seconds:g} s. Send it again."
            raise _RefusedBodyError(HTTPStatus.REQUEST_TIMEOUT, "too_slow", detail) from None

    def _too_large(self) -> _RefusedBodyError:
        detail = f"The request body is larger than the limit of {self._limit} bytes. Send a smaller one."
        return _RefusedBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def _content_length(scope: Scope) -> int:
    """Return the `Content-Length`; 0 if there is none. The server has already refused invalid ones."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(length) if length.isdigit() and len(length) < 20 else 0


async def _refuse(refused: _RefusedBodyError, send: Send) -> None:
    body = json.dumps({"detail": refused.detail, "code": refused.code}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"private, no-store"),
        # The rest of the body is not read.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
