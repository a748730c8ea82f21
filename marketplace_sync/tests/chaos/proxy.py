"""A network between two programs: it carries bytes, or loses, stalls, delays them."""

import asyncio
import contextlib
import socket
import struct
from typing import Self

# Linger for no time: closing resets the connection, as when a machine fails.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a free port of this machine and carries to `target`, a port that may change."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0  # seconds that each piece takes on top
        self._carries = asyncio.Event()
        self._carries.set()
        self._refuses = False
        self._loses_answers = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def carries(self) -> bool:
        return self._carries.is_set() and not self._refuses and not self._loses_answers

    def cut(self) -> None:
        """Reset every connection, and each new one, until `repair`."""
        self._refuses = True
        self.reset()

    def stall(self) -> None:
        """Carry nothing, without closing anything, until `repair`. What is sent meanwhile arrives then."""
        self._carries.clear()

    def lose_answers(self) -> None:
        """Carry requests but no answers; `repair` then resets, so the client does not know what was done."""
        self._loses_answers = True

    def repair(self) -> None:
        if self._loses_answers:
            self.reset()
        self._loses_answers = self._refuses = False
        self.delay = 0.0
        self._carries.set()

    def reset(self) -> None:
        """Reset all open connections."""
        for writer in tuple(self._writers):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._refuses:
                return
            await self._carries.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            try:
                await self._both(reader, writer, there, back)
            finally:
                self._writers.discard(back)
                _reset(back)
        except (OSError, asyncio.CancelledError):
            return  # cancelled at the end; asyncio's streams would log that as an error
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            _reset(writer)

    async def _both(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        ways = [
            asyncio.ensure_future(self._carry(reader, back, answers=False)),
            asyncio.ensure_future(self._carry(there, writer, answers=True)),
        ]
        try:
            # A side that has finished may still receive the rest from the other, but not for long.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(ways, timeout=1.0)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._carries.wait()
                if answers and self._loses_answers:
                    continue
                writer.write(data)
                await writer.drain()
            await self._carries.wait()
            if writer.can_write_eof():
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
