"""The connection machine of the engine with a clock, for its tests."""

from marketplace_sync.engine.connection import decide
from marketplace_sync.engine.connection_state import (
    ConnectionState,
    DisableRequested,
    Effect,
    Failed,
    Input,
    Limits,
    Lost,
    Mode,
    Opened,
    Started,
    StopRequested,
    Tick,
    next_wake,
)

LIMITS = Limits(reconnect_jitter=0.0)
NO_FALLBACK = Limits(reconnect_jitter=0.0, fallback_after_failures=10**6, reconnect_attempts=10**6)


class Driven:
    """A connection machine with a clock."""

    def __init__(self, limits: Limits = LIMITS, now: float = 1000.0) -> None:
        self.state = ConnectionState(limits=limits)
        self.now = now

    def send(self, event: Input, draw: float = 0.0) -> tuple[Effect, ...]:
        self.state, effects = decide(self.state, event, now=self.now, draw=draw)
        assert_consistent(self.state)
        return effects

    def fail(self, **kind: object) -> tuple[Effect, ...]:
        return self.send(Failed(self.state.attempt, "refused", **kind))  # type: ignore[arg-type]

    def open(self) -> tuple[Effect, ...]:
        return self.send(Opened(self.state.attempt))

    def lose(self, after: float = 0.0, **kind: object) -> tuple[Effect, ...]:
        self.now += after
        return self.send(Lost(self.state.attempt, "closed", **kind))  # type: ignore[arg-type]

    def wait(self) -> float:
        """Move the clock to the next wake, send a Tick, and return how many seconds that was."""
        wake = next_wake(self.state)
        assert wake is not None
        slept, self.now = wake - self.now, wake
        self.send(Tick())
        return slept


def assert_consistent(state: ConnectionState) -> None:
    limits = state.limits
    open_, waits = state.mode is Mode.OPEN, state.mode in (Mode.WAITING, Mode.POLLING)
    assert (state.opened_at is not None) == open_
    assert (state.reason == "") == open_
    assert (state.next_attempt_at is not None) == waits
    assert not state.healthy or open_
    if open_ and state.healthy:
        assert (state.consecutive_failures, state.reconnect_attempts, state.retries) == (0, 0, 0)
    if waits:
        assert next_wake(state) == state.next_attempt_at
    if state.mode in (Mode.POLLING, Mode.SUSPENDED):
        assert state.fallback_to_polling
    if state.mode in (Mode.IDLE, Mode.OPEN, Mode.WAITING, Mode.DISABLED, Mode.STOPPED):
        assert not state.fallback_to_polling
    if state.mode is Mode.DISABLED:
        assert (state.consecutive_failures, state.retries) == (0, 0)
    if state.mode is Mode.WAITING:
        assert state.consecutive_failures < limits.fallback_after_failures
    assert state.fallback_to_polling == (state.fallback_started_at is not None)
    assert 0 <= state.consecutive_failures == state.reconnect_attempts <= limits.reconnect_attempts
    if state.mode is Mode.SUSPENDED:
        assert state.reconnect_attempts == limits.reconnect_attempts
    elif state.mode is not Mode.STOPPED:
        assert state.reconnect_attempts < limits.reconnect_attempts
    assert not state.token_refused or state.always_falls_back
    assert not state.token_replaced or state.mode in (Mode.CONNECTING, Mode.OPEN)
    assert state.first_attempt_ended or state.mode in (Mode.IDLE, Mode.CONNECTING)
    assert len(state.attempt_times) <= limits.attempts_per_minute
    assert list(state.attempt_times) == sorted(state.attempt_times)


def reach(mode: Mode) -> Driven:
    """Return a machine in that mode, which inputs alone brought there."""
    machine = Driven()
    if mode is Mode.IDLE:
        return machine
    machine.send(Started(enabled=True))
    match mode:
        case Mode.OPEN:
            machine.open()
        case Mode.WAITING:
            machine.fail()
        case Mode.POLLING:
            machine.fail(refused_token=True)
        case Mode.SUSPENDED:
            machine.fail()
            while machine.state.mode is not Mode.SUSPENDED:
                machine.wait()
                machine.fail()
        case Mode.DISABLED:
            machine.send(DisableRequested())
        case Mode.STOPPED:
            machine.send(StopRequested())
    assert machine.state.mode is mode
    return machine
