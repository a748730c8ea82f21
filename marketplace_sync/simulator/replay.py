"""Replay a recorded history, one message per line, into the catalogue and onto the stream."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from marketplace_sync.protocol.message_types import SKILL_UPDATE
from marketplace_sync.simulator.catalog import bare_category, read_lines
from marketplace_sync.simulator.marketplace import Marketplace, Message
from marketplace_sync.simulator.pace import Pace
from marketplace_sync.simulator.wire import SimulatorError

# Messages that are sent before we wait for slow readers.
_MESSAGES_BETWEEN_DRAINS = 32


class Played(NamedTuple):
    """The result of a replay: messages of the file, categories it created, and the seconds it took."""

    messages: int
    categories: int
    seconds: float


async def replay(market: Marketplace, path: Path, rate: float, drain: Callable[[], Awaitable[None]]) -> Played:
    """Replay a trace (JSON lines, plain or `.gz`) at `rate` messages per second, 0 for full speed.

    Every message is applied to the catalogue and announced as it is in the file, times included. A category that a
    skill names and that does not exist is created and announced just before, and counts for the rate.
    `drain` waits for slow readers, so the file is read no faster than they do.
    Raises `SimulatorError`, naming file and line, when a line is not a message.
    """
    pace = Pace(rate)
    began = time.monotonic()
    count = categories = 0
    for number, raw, message in read_lines(path):
        category = _unlisted_category(market, message)
        if category is not None:
            await pace.turn()
            market.put_category(bare_category(category, _time_of(message)), stamp=False)
            categories += 1
        await pace.turn()
        try:
            market.apply(message, raw)
        except ValueError as error:
            raise SimulatorError(f"{path}, line {number}: {error}.") from None
        count += 1
        if count % _MESSAGES_BETWEEN_DRAINS == 0:
            await drain()
    await drain()
    return Played(count, categories, time.monotonic() - began)


def _unlisted_category(market: Marketplace, message: Message) -> str | None:
    match message:
        case {"type": SKILL_UPDATE.name, "data": {"category": str(name)}} if name and name not in market.categories:
            return name
    return None


def _time_of(message: Message) -> str | None:
    return message["data"].get("updated_at") or message.get("timestamp")
