"""Read an untrusted HTTP body: bounded on the wire, and bounded once decompressed."""

import asyncio
import contextlib
import zlib

import httpx2

from marketplace_sync.upstream.errors import MalformedResponseError, quoted

# gzip only: zlib can stop after a number of bytes, so a bomb is never inflated completely. The library's own
# decoders also inflate in steps, but store what follows the end of a gzip body without a limit.
ACCEPT_ENCODING = "gzip"
# Bytes inflated before the event loop gets a turn: about a millisecond of work.
STEP_BYTES = 256 * 1024
_GZIP = zlib.MAX_WBITS | 16
# An empty member has 20 bytes: without a limit a body of the largest size could have three million of them, and take
# a minute. Servers that compress in blocks (BGZF) put at least 16 KiB into each.
_MAX_MEMBERS = 10_000
# Small members inflated before the event loop gets a turn: one takes 10 µs.
_MEMBERS_PER_TURN = 64


async def read_body(response: httpx2.Response, *, limit: int) -> bytes:
    """Return the whole body of an open streamed response, decompressed: at most `limit` bytes, on the wire and after.

    `deflate` is read too, because some servers send it unasked. Raises `MalformedResponseError` if the body is larger,
    broken, or compressed in another way that we did not ask for, and the library's own errors if the connection fails.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        inflater = None
    elif encoding in ("gzip", "x-gzip", "deflate"):
        inflater = _Inflater("deflate" if encoding == "deflate" else "gzip", limit)
    else:
        raise MalformedResponseError(f"the body is compressed as {quoted(encoding)}, which we did not ask for")

    body = bytearray()
    on_the_wire = 0
    async with contextlib.aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            on_the_wire += len(chunk)
            if on_the_wire > limit:
                raise _too_large(limit)
            if inflater is None:
                body += chunk
            else:
                await inflater.take(chunk, into=body)
    if inflater is not None:
        inflater.finish()
    return bytes(body)


class _Inflater:
    """Inflate chunk by chunk, in steps, and stop as soon as the limit is exceeded.

    A gzip body may have several members, one after the other (RFC 1952, 2.2), and zero bytes after the last. What HTTP
    calls deflate is zlib's format (RFC 9110, 8.4.1.2), or the bare stream, which some servers send.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._members = 0
        self._inflated = 0  # bytes that were inflated when the event loop had its latest turn
        self._member: zlib._Decompress | None = None
        self._first = b""  # of a member: two bytes show its format

    async def take(self, chunk: bytes, *, into: bytearray) -> None:
        """Inflate one chunk."""
        while chunk:
            if self._member is None:
                chunk = self._first + chunk
                if self._members:
                    chunk = chunk.lstrip(b"\0")
                self._first = b""
                if len(chunk) < 2:
                    self._first = chunk
                    return
                self._member = self._next_member(chunk)
            try:
                part = self._member.decompress(chunk, STEP_BYTES)
            except zlib.error:
                raise MalformedResponseError(f"the {self._encoding} body is damaged") from None
            into += part
            if len(into) > self._limit:
                raise _too_large(self._limit)
            # Not empty too early: zlib reads the trailer only after all output.
            chunk = self._member.unconsumed_tail
            if self._member.eof:
                chunk = self._member.unused_data
                self._member = None
                if self._members % _MEMBERS_PER_TURN and len(into) - self._inflated < STEP_BYTES:
                    continue
            if chunk:
                self._inflated = len(into)
                await asyncio.sleep(0)

    def finish(self) -> None:
        """Raise `MalformedResponseError` if the body ended too early, or did not end."""
        if self._member is not None or not self._members:
            raise MalformedResponseError(f"the {self._encoding} body breaks off")
        if self._first:
            raise MalformedResponseError(f"bytes follow the end of the {self._encoding} body")

    def _next_member(self, chunk: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise MalformedResponseError(f"the gzip body has more than {_MAX_MEMBERS:,} members")
        if self._encoding == "deflate":
            if self._members > 1:
                raise MalformedResponseError("bytes follow the end of the deflate body")
            is_zlib = chunk[0] & 0x0F == zlib.DEFLATED and int.from_bytes(chunk[:2]) % 31 == 0
            return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        if self._members > 1 and chunk[:2] != b"\x1f\x8b":
            raise MalformedResponseError("bytes follow the end of the gzip body")
        return zlib.decompressobj(_GZIP)


def _too_large(limit: int) -> MalformedResponseError:
    return MalformedResponseError(f"the body is larger than {limit} bytes")
