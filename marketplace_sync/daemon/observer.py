"""Publish events of the daemon to observers, so that its parts do not depend on those that count, show or announce."""

from collections.abc import Sequence
from datetime import timedelta

from marketplace_sync.daemon.sync_report import SyncReport
from marketplace_sync.daemon.writer import Committed
from marketplace_sync.engine.connection_state import ConnectionState
from marketplace_sync.mirror.arrived import Effect, Item
from marketplace_sync.models import Command, WebSocketState


class DaemonObserver:
    """Base class of observers. Each method does nothing; an observer overrides those it needs.

    The methods are called in the event loop, and may neither wait nor raise.
    """

    def committed(self, batch: Committed) -> None:
        """Note that a batch of stream messages is committed."""

    def written(self, items: Sequence[Item], effects: Sequence[Effect], seconds: float) -> None:
        """Note that a batch of any source is applied, and how long that took."""

    def feed_grown(self, seq: int) -> None:
        """Note the newest feed number; all changes up to it are committed."""

    def lags_measured(self, lags: Sequence[float]) -> None:
        """Note how late the applied messages of a batch were, in seconds and in their order; never empty."""

    def stream_opened(self, server_offset: timedelta) -> None:
        """Note that the stream is open, and how far the marketplace's clock is ahead of ours."""

    def token_checked(self, *, refused: bool) -> None:
        """Note whether the stream refused the token that was just presented."""

    def connection_changed(self, before: ConnectionState, after: ConnectionState) -> None:
        """Note that the connection machine has decided, and changed its state."""

    def sync_began(self) -> None:
        """Note that a full sync has begun."""

    def sync_ended(self, report: SyncReport, seconds: float) -> None:
        """Note that a full sync has ended, and how long it took."""

    def removals_held(self, run_id: int, count: int, reason: str) -> None:
        """Note that a sync run has put so many removals on hold."""

    def state_changed(self, state: WebSocketState.State) -> None:
        """Note the new public state of the connection."""

    def state_written(self, state: str, before: str, reason: str) -> None:
        """Note that the status row has a new state. `before` is "" for the first one."""

    def command_ended(self, action: str, state: Command.State) -> None:
        """Note that a command was answered, or had expired."""


class Observers(DaemonObserver):
    """Notify several observers, in the order in which they were added."""

    def __init__(self, *observers: DaemonObserver) -> None:
        self._observers = list(observers)

    def add(self, *observers: DaemonObserver) -> None:
        """Notify these too, from now on, after those that are there."""
        self._observers.extend(observers)

    def committed(self, batch: Committed) -> None:
        for observer in self._observers:
            observer.committed(batch)

    def written(self, items: Sequence[Item], effects: Sequence[Effect], seconds: float) -> None:
        for observer in self._observers:
            observer.written(items, effects, seconds)

    def feed_grown(self, seq: int) -> None:
        for observer in self._observers:
            observer.feed_grown(seq)

    def lags_measured(self, lags: Sequence[float]) -> None:
        for observer in self._observers:
            observer.lags_measured(lags)

    def stream_opened(self, server_offset: timedelta) -> None:
        for observer in self._observers:
            observer.stream_opened(server_offset)

    def token_checked(self, *, refused: bool) -> None:
        for observer in self._observers:
            observer.token_checked(refused=refused)

    def connection_changed(self, before: ConnectionState, after: ConnectionState) -> None:
        for observer in self._observers:
            observer.connection_changed(before, after)

    def sync_began(self) -> None:
        for observer in self._observers:
            observer.sync_began()

    def sync_ended(self, report: SyncReport, seconds: float) -> None:
        for observer in self._observers:
            observer.sync_ended(report, seconds)

    def removals_held(self, run_id: int, count: int, reason: str) -> None:
        for observer in self._observers:
            observer.removals_held(run_id, count, reason)

    def state_changed(self, state: WebSocketState.State) -> None:
        for observer in self._observers:
            observer.state_changed(state)

    def state_written(self, state: str, before: str, reason: str) -> None:
        for observer in self._observers:
            observer.state_written(state, before, reason)

    def command_ended(self, action: str, state: Command.State) -> None:
        for observer in self._observers:
            observer.command_ended(action, state)
