"""The transitions of the connection machine: one function per kind of cell in the table of `engine.connection`.

Each takes the state, the input, the time and a random number, and returns the next state with the effects. The numbers
of rules are those of `engine.connection`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from marketplace_sync.engine.connection_state import (
    ATTEMPT_WINDOW,
    CloseStream,
    Connect,
    ConnectionState,
    Decision,
    EnableRequested,
    Failed,
    Lost,
    Mode,
    Opened,
    PollNow,
    ReconnectRequested,
    Started,
    Tick,
    lasted_long_enough,
    recent_attempts,
    slot_free_in,
)

Transition = Callable[[ConnectionState, Any, float, float], Decision]


def ignore(state: ConnectionState, event: Any, now: float, draw: float) -> Decision:
    """Change nothing: the input is late, repeated, or has no meaning in this mode."""
    return state, ()


def start(state: ConnectionState, event: Started, now: float, draw: float) -> Decision:
    """Connect, or stay disabled."""
    return _connect(state, now) if event.enabled else disable(state, event, now, draw)


def close_old(state: ConnectionState, event: Opened, now: float, draw: float) -> Decision:
    """Close the stream of an attempt that was given up, by its number."""
    return state, (CloseStream(event.attempt),)


def opened(state: ConnectionState, event: Opened, now: float, draw: float) -> Decision:
    """Note that the stream is open. The counters stay as they are, and so does `always_falls_back` (rule 2)."""
    if event.attempt != state.attempt:
        return close_old(state, event, now, draw)
    if state.mode is Mode.OPEN:
        return state, ()
    opened_now = replace(
        state, mode=Mode.OPEN, opened_at=now, fallback_started_at=None, reason="", first_attempt_ended=True
    )
    return opened_now, ()


def ended(state: ConnectionState, report: Failed | Lost, now: float, draw: float) -> Decision:
    """Count a failure unless the stream was healthy, then retry, poll or suspend (rules 3 to 8).

    `Failed` and `Lost` are treated alike: the stream has ended, even if the report that it had opened never came.
    """
    if report.attempt != state.attempt:
        return state, ()
    # By the clock, and not by whether the Tick came: a busy loop must not turn health into a failure.
    if state.healthy or lasted_long_enough(state, now):
        state = _reset_counters(state)
    else:
        state = replace(state, consecutive_failures=state.consecutive_failures + 1)
    try_new_token = state.token_replaced and (state.token_refused or report.refused_token)
    state = replace(
        state,
        opened_at=None,
        healthy=False,
        token_refused=state.token_refused or report.refused_token,
        token_replaced=False,
        first_attempt_ended=True,
        reason=report.reason or "no reason given",
    )
    if try_new_token:
        return _connect(_reset_counters(state), now)
    limits = state.limits
    if state.consecutive_failures >= limits.reconnect_attempts:
        return _fall_back(state, Mode.SUSPENDED, now, next_attempt_at=None)
    if report.refused_token or state.always_falls_back or state.consecutive_failures >= limits.fallback_after_failures:
        # A Retry-After counts up to the fallback period, so it is always over by then.
        return _fall_back(state, Mode.POLLING, now, next_attempt_at=now + limits.fallback_seconds)
    wait = _retry_delay(state, report.retry_after, draw)
    return replace(state, mode=Mode.WAITING, retries=state.retries + 1, next_attempt_at=now + wait), ()


def be_healthy(state: ConnectionState, event: Tick, now: float, draw: float) -> Decision:
    """Reset the counters once the open stream has lasted long enough (rule 2)."""
    if state.healthy or not lasted_long_enough(state, now):
        return state, ()
    return replace(_reset_counters(state), healthy=True), ()


def retry(state: ConnectionState, event: Tick, now: float, draw: float) -> Decision:
    """Begin the next attempt if it is due."""
    if state.next_attempt_at is not None and now < state.next_attempt_at:
        return state, ()
    return _connect(state, now) if state.limits.counts_retries else _begin(state, state.attempt_times)


def note_token(state: ConnectionState, event: Any, now: float, draw: float) -> Decision:
    """Remember that the attempt under way, or the open stream, uses a token that has been replaced (rule 6)."""
    return replace(state, token_replaced=True), ()


def try_token(state: ConnectionState, event: Any, now: float, draw: float) -> Decision:
    """Connect with the new token if the old one was refused (rule 6)."""
    return _connect(_reset_counters(state), now) if state.token_refused else (state, ())


def reset(state: ConnectionState, event: ReconnectRequested, now: float, draw: float) -> Decision:
    """Let the attempt under way serve as the reconnect (rule 9)."""
    return _reset_counters(state), ()


def reopen(state: ConnectionState, event: ReconnectRequested, now: float, draw: float) -> Decision:
    """Close the open stream and connect, if the limit of attempts allows it now (rule 11)."""
    if slot_free_in(state, now) > 0:
        return state, ()
    connecting, effects = _connect(replace(_reset_counters(state), reason="a reconnect was requested"), now)
    return connecting, (CloseStream(state.attempt), *effects)


def reconnect(state: ConnectionState, event: ReconnectRequested, now: float, draw: float) -> Decision:
    """Connect without waiting, with the counters reset (rule 9)."""
    return _connect(_reset_counters(state), now)


def enable(state: ConnectionState, event: EnableRequested, now: float, draw: float) -> Decision:
    """Connect (rule 9)."""
    return _connect(replace(state, reason="not connected yet"), now)


def disable(state: ConnectionState, event: Any, now: float, draw: float) -> Decision:
    """Close the stream, and forget the counters (rule 9)."""
    return _switch_off(_reset_counters(state), Mode.DISABLED, "disabled")


def stop(state: ConnectionState, event: Any, now: float, draw: float) -> Decision:
    """Close the stream for good (rule 10)."""
    return _switch_off(state, Mode.STOPPED, "stopped")


def _connect(state: ConnectionState, now: float) -> Decision:
    """Begin an attempt, or wait for the moment at which the limit of attempts allows it (rule 11)."""
    limit, recent = state.limits.attempts_per_minute, recent_attempts(state, now)
    if len(recent) < limit:
        return _begin(state, (*recent, now))
    polls = state.mode is Mode.POLLING and state.fallback_to_polling
    waiting = replace(
        state,
        mode=Mode.POLLING if polls else Mode.WAITING,
        opened_at=None,
        healthy=False,
        token_replaced=False,
        # The same sum as in `recent_attempts`, so that the attempt is allowed when the Tick comes.
        next_attempt_at=recent[-limit] + ATTEMPT_WINDOW,
        reason=f"{limit} connection attempts in the last minute are the limit; the next one follows",
    )
    return waiting, ()


def _begin(state: ConnectionState, attempt_times: tuple[float, ...]) -> Decision:
    number = state.attempt + 1
    connecting = replace(
        state,
        mode=Mode.CONNECTING,
        attempt=number,
        opened_at=None,
        healthy=False,
        token_replaced=False,
        next_attempt_at=None,
        attempt_times=attempt_times,
    )
    return connecting, (Connect(number),)


def _fall_back(state: ConnectionState, mode: Mode, now: float, *, next_attempt_at: float | None) -> Decision:
    polling = replace(
        state, mode=mode, always_falls_back=True, fallback_started_at=now, next_attempt_at=next_attempt_at
    )
    return polling, (PollNow(state.reason),)


def _retry_delay(state: ConnectionState, retry_after: float | None, draw: float) -> float:
    """Return the seconds before the next attempt (rules 4 and 7)."""
    limits = state.limits
    delay = limits.reconnect_delays[min(state.retries, len(limits.reconnect_delays) - 1)]
    wait = delay * (1 + draw * limits.reconnect_jitter)
    return wait if retry_after is None else max(wait, min(retry_after, limits.fallback_seconds))


def _switch_off(state: ConnectionState, mode: Mode, reason: str) -> Decision:
    effects = (CloseStream(state.attempt),) if state.mode in (Mode.CONNECTING, Mode.OPEN) else ()
    off = replace(
        state,
        mode=mode,
        opened_at=None,
        healthy=False,
        token_replaced=False,
        fallback_started_at=None,
        next_attempt_at=None,
        reason=reason,
        first_attempt_ended=True,
    )
    return off, effects


def _reset_counters(state: ConnectionState) -> ConnectionState:
    """Return the state as after a healthy connection: nothing counted, no fallback."""
    return replace(
        state,
        consecutive_failures=0,
        retries=0,
        always_falls_back=False,
        token_refused=False,
        fallback_started_at=None,
    )
