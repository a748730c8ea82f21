"""Writes the state row: at once when something changed, at most once a second for the rest (law 9)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from marketplace_sync.daemon.database import Database
from marketplace_sync.engine.connection_state import ConnectionState, Mode
from marketplace_sync.logs import redact
from marketplace_sync.mirror.lease import Lease
from marketplace_sync.mirror.state import save_state
from marketplace_sync.models import WebSocketState

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 1.0
# The two clocks drift apart by less within the life of a connection's times.
_CLOCK_WAS_SET = timedelta(seconds=2)
State = WebSocketState.State


def shown_state(connection: ConnectionState, *, caught_up: bool) -> WebSocketState.State:
    """The public word for how things stand."""
    match connection.mode:
        case Mode.IDLE:
            return State.CONNECTING
        case Mode.CONNECTING:
            return State.RECONNECTING if connection.first_attempt_ended else State.CONNECTING
        case Mode.OPEN:
            return State.LIVE if caught_up else State.CATCHING_UP
        case Mode.WAITING:
            return State.RECONNECTING
        case Mode.POLLING:
            return State.POLLING
        case Mode.SUSPENDED:
            return State.SUSPENDED
        case Mode.DISABLED:
            return State.DISABLED
        case Mode.STOPPED:
            return State.NOT_RUNNING


class Reporter:
    """Holds what the row shall say and writes it. `poke()` says that something a person waits for has changed.

    `lags` hands over what goes into the minute's figures together with the totals.
    `told` hears of each change of state once it is written: the state, the one before, the reason.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        connection: Callable[[], ConnectionState],
        caught_up: Callable[[], bool],
        complete: Callable[[], bool],
        totals: Counter[str],
        lags: Callable[[], Mapping[int, int]],
        last_message_at: Callable[[], datetime | None],
        stream_wanted: Callable[[], bool],
        told: Callable[[str, str, str], None],
        clock: Callable[[], float],
        wall: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._lease = lease
        self._connection = connection
        self._caught_up = caught_up
        self._complete = complete
        self._totals = totals
        self._lags = lags
        self._last_message_at = last_message_at
        self._stream_wanted = stream_wanted
        self._told = told
        self._clock = clock
        self._wall = wall
        self._poked = asyncio.Event()
        self._last_connected_at: datetime | None = None
        self._moments: dict[float, datetime] = {}
        self._written: tuple[dict[str, Any], Counter[str]] | None = None

    def poke(self) -> None:
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.write()
            self._poked.clear()
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def write(self) -> None:
        """Write the row if it differs from what was written last."""
        columns = self._columns()
        totals = Counter(self._totals)
        if (columns, totals) != self._written:
            shown = self._written[0]["state"] if self._written else ""
            if columns["state"] != shown:
                log.info(
                    "state", state=str(columns["state"]), reason=columns["disconnect_reason"],
                    connection=self._connection().attempt,
                )  # fmt: skip
            await self._database.control(save_state, self._lease, columns, totals, self._lags())
            self._written = (columns, totals)
            if columns["state"] != shown:
                self._told(str(columns["state"]), str(shown), columns["disconnect_reason"])

    def state(self) -> WebSocketState.State:
        """The public word for how things stand now."""
        connection = self._connection()
        if not self._stream_wanted() and connection.mode is Mode.DISABLED:
            return State.POLLING  # by the settings, not by a person: nothing waits for anybody
        return shown_state(connection, caught_up=self._caught_up())

    def _columns(self) -> dict[str, Any]:
        connection = self._connection()
        columns: dict[str, Any] = {
            "connected": connection.mode is Mode.OPEN,
            "state": self.state(),
            "complete": self._complete(),
            "disconnect_reason": redact(connection.reason)[:500],
            "reconnect_attempts": connection.reconnect_attempts,
            "consecutive_failures": connection.consecutive_failures,
            "fallback_to_polling": connection.fallback_to_polling,
            "fallback_started_at": self._moment(connection.fallback_started_at),
            "next_ws_attempt_at": self._moment(connection.next_attempt_at),
        }
        if connection.opened_at is not None:
            self._last_connected_at = self._moment(connection.opened_at)
        if self._last_connected_at is not None:
            columns["last_connected_at"] = self._last_connected_at
        if (at := self._last_message_at()) is not None:
            columns["last_message_at"] = at
        return columns

    def _moment(self, at: float | None) -> datetime | None:
        """Return a time of the monotonic clock as a date, the same each time: two clocks differ by microseconds.

        Where our time of day was set since, it is another date.
        """
        if at is None:
            return None
        date = self._wall() + timedelta(seconds=at - self._clock())
        if at not in self._moments or abs(date - self._moments[at]) > _CLOCK_WAS_SET:
            self._moments = dict(list(self._moments.items())[-8:])
            self._moments[at] = date
        return self._moments[at]
