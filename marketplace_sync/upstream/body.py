"""Reads an HTTP body that nobody vouches for: bounded on the wire and bounded once unpacked."""

import asyncio
import contextlib
import zlib

import httpx2

from marketplace_sync.upstream.faults import MalformedAnswer, quoted

# gzip only: zlib can stop after a number of bytes, so a bomb is never inflated whole. The library's own
# decoders also unpack in steps, yet keep what follows the end of a gzip body without a bound.
ACCEPT_ENCODING = "gzip"
# Inflated between two looks at the event loop: about a millisecond's work.
STEP_BYTES = 256 * 1024
_GZIP = zlib.MAX_WBITS | 16


async def read_body(response: httpx2.Response, *, limit: int) -> bytes:
    """The whole body of an open streamed response, unpacked; `limit` bytes at most, on the wire and after.

    Raises `MalformedAnswer` when it is larger, broken, or packed in a way that we did not ask for, and the
    library's own errors when the connection fails.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        inflater = None
    elif encoding in ("gzip", "x-gzip"):
        inflater = zlib.decompressobj(_GZIP)
    else:
        raise MalformedAnswer(f"the body is packed as {quoted(encoding)}, which we did not ask for")

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
                await _inflate(inflater, chunk, into=body, limit=limit)
    if inflater is not None and not inflater.eof:
        raise MalformedAnswer("the gzip body breaks off")
    return bytes(body)


async def _inflate(inflater: "zlib._Decompress", chunk: bytes, *, into: bytearray, limit: int) -> None:
    """Unpacks one chunk, step by step, and gives up as soon as the limit is passed."""
    while chunk:
        if inflater.eof:
            raise MalformedAnswer("bytes follow the end of the gzip body")
        try:
            part = inflater.decompress(chunk, STEP_BYTES)
        except zlib.error:
            raise MalformedAnswer("the gzip body is damaged") from None
        into += part
        if len(into) > limit:
            raise _too_large(limit)
        if inflater.unused_data:
            raise MalformedAnswer("bytes follow the end of the gzip body")
        # Never empty too soon: the trailer is taken only once all output is out.
        chunk = inflater.unconsumed_tail
        if chunk:
            await asyncio.sleep(0)


def _too_large(limit: int) -> MalformedAnswer:
    return MalformedAnswer(f"the body is larger than {limit} bytes")
