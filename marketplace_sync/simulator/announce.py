"""Send each change of the catalogue to every open stream, through the faults that are set."""

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Any

from marketplace_sync.protocol.message_types import SKILL_UPDATE, Subject, subject_of
from marketplace_sync.simulator.faults import FaultSet
from marketplace_sync.simulator.listing import alias_category, alias_skill
from marketplace_sync.simulator.malformed import BadMessage, bad_messages
from marketplace_sync.simulator.marketplace import Marketplace, Message
from marketplace_sync.simulator.stream import StreamServer
from marketplace_sync.simulator.wire import encode

# RSV2 and RSV3 set on an empty text frame: no extension gives them a meaning, so a client must fail the connection.
BROKEN_FRAME = b"\xb1\x00"


class Announcer:
    """Listens to the marketplace. A change without an open stream is sent to nobody and uses up no fault."""

    def __init__(self, market: Marketplace, faults: FaultSet, streams: Collection[StreamServer]) -> None:
        self._market = market
        self._faults = faults
        self._streams = streams
        self._bad: Iterator[BadMessage] | None = None
        self._delayed: bytes | None = None
        self._release: asyncio.TimerHandle | None = None

    def __call__(self, message: Message, raw: bytes | None = None) -> None:
        if not self._streams:
            return
        if not self._faults and self._delayed is None:
            self._send(raw or encode(message))
            return
        data = message.get("data", {})
        subject = f"{message.get('type')} {data.get('skill_id') or data.get('name')}"
        self._disturb(self._each_stream, subject)
        if self._faults.take("dropped-event", subject) is not None:
            return
        if self._faults.take("aliases", subject) is not None:
            message, raw = _aliased(message), None
        payload = self._padded(message, subject) or raw or encode(message)
        for _ in range(2 if self._faults.take("duplicate", subject) is not None else 1):
            self._send_in_order(payload, subject)

    def greet(self, stream: StreamServer) -> None:
        """Send what a faulty server sends to a stream that has just opened."""
        self._disturb(lambda send: send(stream), "connect")

    def close(self) -> None:
        """Drop a message that the fault reorder delays."""
        if self._release is not None:
            self._release.cancel()
        self._delayed = self._release = None

    def _send(self, payload: bytes) -> None:
        for stream in tuple(self._streams):
            stream.send_text(payload)

    def _each_stream(self, send: Callable[[StreamServer], None]) -> None:
        for stream in tuple(self._streams):
            send(stream)

    def _disturb(self, to: Callable[[Callable[[StreamServer], None]], None], subject: str) -> None:
        if (bad := self._faults.take("malformed", subject)) is not None:
            if self._bad is None:
                self._bad = bad_messages(self._market, bad["seed"])
            payload, binary = next(self._bad)
            to(lambda stream: stream.send_binary(payload) if binary else stream.send_text(payload))
        if self._faults.take("broken-frame", subject) is not None:
            to(lambda stream: stream.send_bytes(BROKEN_FRAME))

    def _padded(self, message: Message, subject: str) -> bytes | None:
        if message.get("type") != SKILL_UPDATE.name:
            return None
        for name in ("oversize-hard", "oversize"):
            if (fault := self._faults.take(name, subject)) is not None:
                return encode({**message, "data": {**message["data"], "padding": "x" * fault["size"]}})
        return None

    def _send_in_order(self, payload: bytes, subject: str) -> None:
        if self._delayed is not None:
            delayed = self._delayed
            self.close()
            self._send(payload)
            self._send(delayed)
        elif (fault := self._faults.take("reorder", subject)) is not None:
            # The first of a pair waits for the second, but not forever: it must not get lost.
            self._delayed = payload
            self._release = asyncio.get_running_loop().call_later(fault["linger"], self._send_delayed)
        else:
            self._send(payload)

    def _send_delayed(self) -> None:
        delayed = self._delayed
        self.close()
        if delayed is not None:
            self._send(delayed)


def _aliased(message: Message) -> Message:
    data: dict[str, Any] = message["data"]
    renamed = alias_category(data) if subject_of(message["type"]) is Subject.CATEGORY else alias_skill(data)
    return {**message, "data": renamed}
