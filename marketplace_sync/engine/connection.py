"""The connection machine: told what happened to the stream, it answers what to do next.

Its rules, from PROTOCOL.md, "The client's duties" and "How the counters live together":

 1. One attempt at a time. A new one is begun by the start, a timer that is due, or a person.
 2. A connection is healthy once it has stood for `healthy_after`. Only that sets the counters to 0;
    to be accepted is worth nothing, so a server that accepts and drops is treated like one that refuses.
 3. An attempt that ends without having been healthy counts once, when it ends.
 4. Before a retry: `reconnect_delays[retries]` (the last one from there on) and up to `reconnect_jitter`
    of it on top, so that the clients of a restarted server don't all return in the same instant. After a
    healthy connection the first retry waits the first delay, whoever closed it and with whatever code.
 5. From failure number `fallback_after_failures` on: polling only for `fallback_seconds`, with a poll at
    once; then one attempt. Until a connection is healthy, or a person asks, each attempt that fails
    begins the next such hour. One that opens interrupts the hour, it does not end the rule.
 6. A refused token goes straight to rule 5: the same token won't be welcome a second later. A new token will: it
    gets one attempt at once, with the counters anew, as if a person had asked. One that comes while an attempt is under
    way or a stream is open waits for how that ends: a refusal, or any failure since a refusal, is the old token's.
 7. A `Retry-After` lengthens the wait, up to `fallback_seconds`; it never shortens one.
 8. At failure number `reconnect_attempts` the stream rests, with a poll at once, until a person asks.
    This wins over rules 4 to 7, but for the new token of rule 6.
 9. A person who asks for a reconnect gets an attempt at once and the counters anew; an attempt under way
    serves. Disabling closes the stream and forgets the counters; enabling connects at once.
10. Stopped is final.
11. At most `attempts_per_minute` attempts begin in any `ATTEMPT_WINDOW`, whatever or whoever asks for them. One that
    would be too many waits for its place, WAITING or POLLING as before. An open stream is not given up for it: then a
    reconnect changes nothing, and `slot_free_in` says when it would. Only retries after delays that are themselves
    faster than the limit (below 1 s, or a fallback time below 60 s) are not counted: the operator chose them.

Polling at its interval never depends on any of this; `PollNow` only asks for one in between.

How it runs. `decide` takes the state and one input and gives the next state and the effects, to be carried
out in their order. Whoever drives it keeps a timer at `next_wake(state)` and sends a `Tick` when it rings; a Tick
too early or too often does no harm, a late one neither, for what counts is read from `now`.

Attempts are numbered. `Connect` hands out a number, and every report about that attempt (`Opened`, `Failed`,
`Lost`) brings it back. The number is kept by the stream that the attempt opens. So when a person asks for a
reconnect and the old stream's `Lost` comes in after the new `Connect`, it bears the old number and is ignored: the
machine wrote that attempt off when it asked to close it. The one late report that needs an answer is an
`Opened` nobody waits for: it is closed, by its number, in every mode.

Acknowledging a reconnect (law 11) needs nothing more than the state: note `state.attempt` after the
`ReconnectRequested`. It is done when the mode is OPEN with that number, and failed with `state.reason` when the mode
has become anything but CONNECTING or the number has changed. By rule 11 the number may change later, or, where the
mode is OPEN still, never. Where `accepts_reconnect(state)` is false, refuse it.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

# Seconds. The marketplace counts in 60 s; the one more is for an attempt that takes longer to arrive than a later one.
ATTEMPT_WINDOW = 61.0
# Waits from which on retries alone keep to the marketplace's limit.
_SLOW_DELAY, _SLOW_FALLBACK = 1.0, 60.0


class Mode(StrEnum):
    """What the machine is about."""

    IDLE = "idle"  # not started
    CONNECTING = "connecting"  # an attempt is under way
    OPEN = "open"  # a stream is open, healthy or not yet
    WAITING = "waiting"  # for the delay before a retry
    POLLING = "polling"  # polling only, for the fallback time
    SUSPENDED = "suspended"  # attempts used up, waits for a person or an agent
    DISABLED = "disabled"  # a person or the settings said so
    STOPPED = "stopped"  # for good


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The figures of PROTOCOL.md, "The client's duties". Times in seconds. Raises `ValueError` for what can't work."""

    healthy_after: float = 30.0
    reconnect_delays: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    reconnect_jitter: float = 0.10  # share of the delay, at most, that comes on top
    reconnect_attempts: int = 10
    fallback_after_failures: int = 3
    fallback_seconds: float = 3600.0
    attempts_per_minute: int = 10

    def __post_init__(self) -> None:
        if not self.reconnect_delays:
            raise ValueError("reconnect_delays needs at least one delay")
        if self.reconnect_attempts < 1 or self.fallback_after_failures < 1:
            raise ValueError("reconnect_attempts and fallback_after_failures must be at least 1")

    @property
    def counts_retries(self) -> bool:
        """Rule 11: whether attempts that a timer begins take a place."""
        return min(self.reconnect_delays) >= _SLOW_DELAY and self.fallback_seconds >= _SLOW_FALLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """The state. Times are those of `now`; `None` means that there is no such time at present."""

    limits: Limits = field(default_factory=Limits)
    mode: Mode = Mode.IDLE
    attempt: int = 0  # the number of the latest attempt; 0: none yet
    consecutive_failures: int = 0  # attempts that did not become a healthy connection, since the last that did
    retries: int = 0  # delays waited since the last healthy connection; the index of the next one
    hourly: bool = False  # rule 5 is in force: whatever fails next begins another fallback time
    opened_at: float | None = None  # set exactly while OPEN
    healthy: bool = False  # the open stream has stood for healthy_after
    fallback_started_at: float | None = None  # the present fallback time, its closing attempt included, or the rest
    next_attempt_at: float | None = None  # set exactly while WAITING or POLLING
    refused: bool = False  # the token was, and no connection has been healthy since
    replaced: bool = False  # the token is another one than when the latest attempt began
    reason: str = "not connected yet"  # why there is no stream, for people; "" exactly while OPEN
    first_attempt_ended: bool = False  # law 4: the first pass waits for this, and for nothing else
    begun: tuple[float, ...] = ()  # when the attempts began that count towards `limits.attempts_per_minute`

    @property
    def reconnect_attempts(self) -> int:
        """Attempts since the last healthy connection, out of `limits.reconnect_attempts`.

        PROTOCOL.md counts the same events under two names, one for each threshold.
        """
        return self.consecutive_failures

    @property
    def fallback_to_polling(self) -> bool:
        """True in POLLING, in the attempt that closes a fallback time, and in SUSPENDED."""
        return self.fallback_started_at is not None


# Inputs: what happened.


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon is up. `enabled`: whether the stream is wanted, by the settings and by the last person who said so."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake of that attempt succeeded."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """That attempt ended without a stream.

    `reason` is for people and must not hold the URL (law 14). `refused_token`: HTTP 401 or 403.
    `retry_after`: seconds that a 429 asked us to wait; `None`: nothing was said.
    """

    attempt: int
    reason: str
    refused_token: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream of that attempt is over, whoever ended it. As `Failed`; `refused_token`: close code 1008 or 4401."""

    attempt: int
    reason: str
    refused_token: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; a timer may be due."""


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """A person or an agent asks for a new stream now."""


@dataclass(frozen=True, slots=True)
class TokenReplaced:
    """Attempts that begin from now on bring another token."""


@dataclass(frozen=True, slots=True)
class DisableRequested:
    """A person or an agent wants no stream."""


@dataclass(frozen=True, slots=True)
class EnableRequested:
    """A person or an agent wants the stream again."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The daemon stops."""


Input = (
    Started
    | Opened
    | Failed
    | Lost
    | Tick
    | TokenReplaced
    | ReconnectRequested
    | DisableRequested
    | EnableRequested
    | StopRequested
)


# Effects: what to do, in this order.


@dataclass(frozen=True, slots=True)
class Connect:
    """Begin an attempt under this number."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream of this attempt, or give the attempt up. Nothing to do where it has ended already."""

    attempt: int


@dataclass(frozen=True, slots=True)
class PollNow:
    """Ask the schedule for a full pass at once: there is no stream to learn from. `reason`: why not."""

    reason: str


Effect = Connect | CloseStream | PollNow
Decision = tuple[Connection, tuple[Effect, ...]]


def decide(state: Connection, event: Input, *, now: float, draw: float) -> Decision:
    """The next state and the effects. Total: every input has an answer in every mode, and none raises.

    `draw` is uniform in 0 to 1, for the jitter; a fresh one for each call.
    """
    match state.mode, event:
        # The reports of attempts. Failed and Lost differ in name only: a stream that is over is over, even where
        # the report that it had opened was never seen.
        case Mode.CONNECTING, Opened(attempt) if attempt == state.attempt:
            return _opened(state, now), ()
        case Mode.OPEN, Opened(attempt) if attempt == state.attempt:
            return state, ()
        case _, Opened(attempt):
            return state, (CloseStream(attempt),)
        case ((Mode.CONNECTING | Mode.OPEN), (Failed() | Lost() as report)) if report.attempt == state.attempt:
            return _ended(state, report, now, draw)

        # Time, and another token.
        case Mode.OPEN, Tick() if not state.healthy and _stood_long_enough(state, now):
            return replace(_anew(state), healthy=True), ()
        case ((Mode.WAITING | Mode.POLLING), Tick()) if state.next_attempt_at is None or now >= state.next_attempt_at:
            return _connect(state, now) if state.limits.counts_retries else _begin(state, state.begun)
        case _, TokenReplaced():
            return _token_replaced(state, now)

        # People, and the daemon itself.
        case Mode.IDLE, Started(enabled):
            return _connect(state, now) if enabled else _off(_anew(state), Mode.DISABLED, "disabled")
        case Mode.OPEN, ReconnectRequested() if slot_free_in(state, now) == 0:
            fresh, effects = _connect(replace(_anew(state), reason="a reconnect was asked for"), now)
            return fresh, (CloseStream(state.attempt), *effects)
        case Mode.CONNECTING, ReconnectRequested():
            return _anew(state), ()
        case ((Mode.WAITING | Mode.POLLING | Mode.SUSPENDED), ReconnectRequested()):
            return _connect(_anew(state), now)
        case Mode.DISABLED, EnableRequested():
            return _connect(replace(state, reason="not connected yet"), now)
        case (
            Mode.IDLE | Mode.CONNECTING | Mode.OPEN | Mode.WAITING | Mode.POLLING | Mode.SUSPENDED,
            DisableRequested(),
        ):
            return _off(_anew(state), Mode.DISABLED, "disabled")
        case (
            Mode.IDLE | Mode.CONNECTING | Mode.OPEN | Mode.WAITING | Mode.POLLING | Mode.SUSPENDED | Mode.DISABLED,
            StopRequested(),
        ):
            return _off(state, Mode.STOPPED, "stopped")

        # What is left changes nothing: reports of attempts already written off, ticks with no timer due, a start
        # after the start, enabling what is enabled, disabling what is disabled, a reconnect of what is
        # not started, disabled or stopped or has no place to begin, and all that comes after the stop.
        case _:
            return state, ()


def next_wake(state: Connection) -> float | None:
    """When a `Tick` is needed next; `None`: time alone changes nothing (an attempt brings its own time-out)."""
    if state.mode is Mode.OPEN and state.opened_at is not None and not state.healthy:
        return state.opened_at + state.limits.healthy_after
    return state.next_attempt_at


def accepts_reconnect(state: Connection) -> bool:
    """Whether `ReconnectRequested` leads to a stream; elsewhere it changes nothing and `state.reason` says why."""
    return state.mode not in (Mode.IDLE, Mode.DISABLED, Mode.STOPPED)


def slot_free_in(state: Connection, now: float) -> float:
    """Return the seconds until one more attempt may begin; 0.0: now."""
    limit = state.limits.attempts_per_minute
    counted = _counted(state, now)
    return 0.0 if len(counted) < limit else counted[-limit] + ATTEMPT_WINDOW - now


def _counted(state: Connection, now: float) -> tuple[float, ...]:
    return tuple(at for at in state.begun if now < at + ATTEMPT_WINDOW)


def _connect(state: Connection, now: float) -> Decision:
    limit, counted = state.limits.attempts_per_minute, _counted(state, now)
    if len(counted) >= limit:
        polls = state.mode is Mode.POLLING and state.fallback_to_polling
        waiting = replace(
            state, mode=Mode.POLLING if polls else Mode.WAITING, opened_at=None, healthy=False, replaced=False,
            # The same sum as in `_counted`, so that the place is free when the Tick comes.
            next_attempt_at=counted[-limit] + ATTEMPT_WINDOW,
            reason=f"{limit} connection attempts in the last minute are the limit; the next one follows",
        )  # fmt: skip
        return waiting, ()
    return _begin(state, (*counted, now))


def _begin(state: Connection, begun: tuple[float, ...]) -> Decision:
    number = state.attempt + 1
    connecting = replace(
        state, mode=Mode.CONNECTING, attempt=number, opened_at=None, healthy=False, replaced=False,
        next_attempt_at=None, begun=begun,
    )  # fmt: skip
    return connecting, (Connect(number),)


def _opened(state: Connection, now: float) -> Connection:
    # The counters and `hourly` stay: rule 2.
    return replace(state, mode=Mode.OPEN, opened_at=now, fallback_started_at=None, reason="", first_attempt_ended=True)


def _ended(state: Connection, report: Failed | Lost, now: float, draw: float) -> Decision:
    limits = state.limits
    # Judged by the clock and not by whether the Tick came: a busy loop must not turn health into a failure.
    if state.healthy or _stood_long_enough(state, now):
        state = _anew(state)
    else:
        state = replace(state, consecutive_failures=state.consecutive_failures + 1)
    reason = report.reason or "no reason given"
    replaced, refused = state.replaced, state.refused or report.refused_token
    state = replace(
        state, opened_at=None, healthy=False, replaced=False, refused=refused, first_attempt_ended=True, reason=reason
    )

    if refused and replaced:
        return _connect(_anew(state), now)
    if state.consecutive_failures >= limits.reconnect_attempts:
        return replace(state, mode=Mode.SUSPENDED, hourly=True, fallback_started_at=now), (PollNow(reason),)
    if report.refused_token or state.hourly or state.consecutive_failures >= limits.fallback_after_failures:
        polling = replace(
            state, mode=Mode.POLLING, hourly=True, fallback_started_at=now,
            # A Retry-After counts up to the fallback time, so it is always over by then.
            next_attempt_at=now + limits.fallback_seconds,
        )  # fmt: skip
        return polling, (PollNow(reason),)
    delay = limits.reconnect_delays[min(state.retries, len(limits.reconnect_delays) - 1)]
    wait = delay * (1 + draw * limits.reconnect_jitter)
    if report.retry_after is not None:
        wait = max(wait, min(report.retry_after, limits.fallback_seconds))
    return replace(state, mode=Mode.WAITING, retries=state.retries + 1, next_attempt_at=now + wait), ()


def _token_replaced(state: Connection, now: float) -> Decision:
    if state.mode in (Mode.CONNECTING, Mode.OPEN):
        return replace(state, replaced=True), ()
    if state.mode in (Mode.POLLING, Mode.SUSPENDED) and state.refused:
        return _connect(_anew(state), now)
    return state, ()


def _off(state: Connection, mode: Mode, reason: str) -> Decision:
    effects = (CloseStream(state.attempt),) if state.mode in (Mode.CONNECTING, Mode.OPEN) else ()
    off = replace(
        state, mode=mode, opened_at=None, healthy=False, replaced=False, fallback_started_at=None,
        next_attempt_at=None, reason=reason, first_attempt_ended=True,
    )  # fmt: skip
    return off, effects


def _anew(state: Connection) -> Connection:
    """As after a healthy connection: nothing counted, no fallback."""
    return replace(state, consecutive_failures=0, retries=0, hourly=False, refused=False, fallback_started_at=None)


def _stood_long_enough(state: Connection, now: float) -> bool:
    # The same sum as in next_wake: the difference, rounded, can be a hair short at that very moment, and the Tick
    # would ask to be woken again at once, for ever.
    return state.opened_at is not None and now >= state.opened_at + state.limits.healthy_after
