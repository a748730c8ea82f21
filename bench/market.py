"""The simulated marketplace in a process of its own, which sends on command and is not part of what is measured.

It is the simulator, with two things made beforehand: the messages' JSON, and the listing's pages, which are kept as
long as the truth stays as it is. It prints JSON lines: its addresses, then an answer to each command.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from marketplace_sync.simulator.catalog import derive_categories, load_skills, read_lines
from marketplace_sync.simulator.http import Answer, HttpRequest
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.pace import Pace
from marketplace_sync.simulator.server import SimulatorServer

TOKEN = "bench-token"
_BETWEEN_DRAINS = 32


async def serve(catalog: Path | None, messages: Path | None, *, compress: bool) -> None:
    skills = load_skills(catalog) if catalog else []
    history = [(message, raw) for _, raw, message in read_lines(messages)] if messages else []
    # With the categories that only the history names: creating one later would be another message.
    market = Marketplace(skills, derive_categories([*skills, *(message["data"] for message, _ in history)]))
    async with SimulatorServer(
        market, TOKEN, requests_per_minute=0, connects_per_minute=0, heartbeat_interval=1.0, compress=compress
    ) as server:
        keep_pages(server)
        reply(api_url=server.api_url, ws_url=server.ws_url)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            match command["do"]:
                case "clients":
                    reply(clients=server.clients)
                case "send":
                    count = command["count"]
                    reply(**await send(server, history[:count], command["rate"]))
                    del history[:count]
                case "heard":
                    reply(heard=dict(server.heard), connects=len(server.connects))


async def send(server: SimulatorServer, history: list[tuple[dict[str, Any], bytes]], rate: float) -> dict[str, Any]:
    """Send the messages. Return the times in ns of the monotonic clock (at full speed: only begin and end)."""
    pace, times = Pace(rate), []
    began = time.monotonic_ns()
    for number, (message, raw) in enumerate(history, 1):
        if rate:
            await pace.turn()
            times.append(time.monotonic_ns())
        server.market.apply(message, raw)
        if number % _BETWEEN_DRAINS == 0:
            await server.drain()
    await server.drain()
    return {"began": began, "ended": time.monotonic_ns(), "sent": times}


def keep_pages(server: SimulatorServer) -> None:
    """Serve a page from memory when it was requested before, until the catalogue changes."""
    pages: dict[str, Answer] = {}
    make = server.api.answer

    def answer(request: HttpRequest) -> Answer:
        if request.target not in pages:
            pages[request.target] = make(request)
        return pages[request.target]

    server.api.answer = answer  # type: ignore[method-assign]
    server.market.listeners.append(lambda *_: pages.clear())


def reply(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _catalog, _messages, _compress = sys.argv[1:]
    asyncio.run(
        serve(
            Path(_catalog) if _catalog else None, Path(_messages) if _messages else None, compress=_compress == "True"
        )
    )
