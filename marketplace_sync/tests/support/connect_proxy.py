"""A proxy for tests: tunnels by CONNECT, forwards plain requests, and takes every host name for this machine."""

import asyncio
import base64
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class ConnectProxy:
    """Use as `async with`. `login`: what it asks for, "user:password". `asked`: the first line of each request."""

    def __init__(self, login: str = "") -> None:
        self.asked: list[str] = []
        self._wanted = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def tunnels(self) -> list[str]:
        """Where tunnels were asked to, each named once, in order."""
        return list(dict.fromkeys(line.split()[1] for line in self.asked if line.startswith("CONNECT ")))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, _, rest = head.partition("\r\n")
            self.asked.append(first)
            if self._wanted and self._wanted.lower() not in rest.lower():
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, version = first.split(" ")
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", parts.port or 80)
            with contextlib.closing(far_writer):
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
                    far_writer.write(f"{method} {path} {version}\r\nConnection: close\r\n{rest}".encode("latin-1"))
                ways = [asyncio.ensure_future(_pass_on(*way)) for way in ((reader, far_writer), (far_reader, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
