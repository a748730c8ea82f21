"""Write the status row: immediately when the state changes, at most once per second for the rest (law 9)."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

import structlog

from marketplace_sync.daemon.clocks import Clocks
from marketplace_sync.daemon.completeness import Completeness
from marketplace_sync.daemon.figures import Figures
from marketplace_sync.daemon.intake import Intake
from marketplace_sync.daemon.observer import DaemonObserver
from marketplace_sync.daemon.session import Session
from marketplace_sync.daemon.stream_driver import StreamDriver
from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.engine.connection_state import ConnectionState, Mode
from marketplace_sync.engine.schedule import Schedule
from marketplace_sync.logs import redact
from marketplace_sync.mirror.state import save_state
from marketplace_sync.models import WebSocketState

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 1.0
_REASON = "disconnect_reason"
# Two clocks drift apart by less during a connection; a larger difference means that one was set.
_CLOCK_WAS_SET = timedelta(seconds=2)
State = WebSocketState.State


def shown_state(connection: ConnectionState, *, caught_up: bool) -> WebSocketState.State:
    """Return the public state for a state of the connection machine."""
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
    assert_never(connection.mode)


@dataclass(frozen=True, slots=True)
class StateSources:
    """The parts of the daemon whose state the status row shows."""

    driver: StreamDriver
    schedule: Schedule
    completeness: Completeness
    intake: Intake
    figures: Figures


class Reporter(DaemonObserver):
    """Write the status row whenever it would differ.

    A connection that is disabled by the settings, and not by a person (`stream_wanted` is false), is shown as polling.
    """

    def __init__(self, session: Session, sources: StateSources, clocks: Clocks, *, stream_wanted: bool) -> None:
        self._session = session
        self._sources = sources
        self._clock = clocks.monotonic
        self._wall = clocks.wall
        self._stream_wanted = stream_wanted
        self._changed = asyncio.Event()
        self._state: WebSocketState.State | None = None
        self._last_connected_at: datetime | None = None
        self._moments: dict[float, datetime] = {}
        self._written: tuple[dict[str, Any], Counter[str]] | None = None

    def connection_changed(self, before: ConnectionState, after: ConnectionState) -> None:
        self._look()

    def sync_began(self) -> None:
        self._look()

    def sync_ended(self, report: SyncReport, seconds: float) -> None:
        self._look()

    def _look(self) -> None:
        """Publish the state if it has changed, and have the row written without waiting for the second to end."""
        if (state := self.state()) != self._state:
            self._state = state
            self._session.observers.state_changed(state)
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self.write()
            self._changed.clear()
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def write(self) -> None:
        """Write the row if it differs from what was written last."""
        columns = self._columns()
        totals = Counter(self._sources.intake.totals)
        if (columns, totals) == self._written:
            return
        state, before, reason = columns["state"], self._written[0]["state"] if self._written else "", columns[_REASON]
        if state != before:
            log.info("state", state=str(state), reason=reason, connection=self._sources.driver.state.attempt)
        lags = self._sources.figures.take()
        await self._session.database.control(save_state, self._session.lease, columns, totals, lags)
        self._written = (columns, totals)
        if state != before:
            self._session.observers.state_written(str(state), str(before), reason)

    def state(self) -> WebSocketState.State:
        """Return the public state now."""
        connection = self._sources.driver.state
        if not self._stream_wanted and connection.mode is Mode.DISABLED:
            return State.POLLING
        return shown_state(connection, caught_up=self._sources.schedule.caught_up)

    def _columns(self) -> dict[str, Any]:
        connection = self._sources.driver.state
        columns: dict[str, Any] = {
            "connected": connection.mode is Mode.OPEN,
            "state": self.state(),
            "complete": self._sources.completeness.complete,
            _REASON: redact(connection.reason)[:500],
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
        if (at := self._sources.intake.last_message_at) is not None:
            columns["last_message_at"] = at
        return columns

    def _moment(self, at: float | None) -> datetime | None:
        """Return a time of the monotonic clock as a date.

        It is the same each time, although two clocks differ by microseconds, until our time of day is set.
        """
        if at is None:
            return None
        date = self._wall() + timedelta(seconds=at - self._clock())
        if at not in self._moments or abs(date - self._moments[at]) > _CLOCK_WAS_SET:
            self._moments = dict(list(self._moments.items())[-8:])
            self._moments[at] = date
        return self._moments[at]
