"""The types of the connection machine: its modes, limits and state, its inputs, and the effects that it asks for.

`engine.connection` has the rules that the numbers in the comments name.
"""

from dataclasses import dataclass, field
from enum import StrEnum

# Seconds in which `attempts_per_minute` attempts may begin. The marketplace counts arrivals within 60 s; the additional
# second is for an attempt that takes longer to arrive than a later one.
ATTEMPT_WINDOW = 61.0
# Seconds: with a shorter delay, or a shorter fallback period, retries do not count (rule 11).
_SLOW_DELAY, _SLOW_FALLBACK = 1.0, 60.0


class Mode(StrEnum):
    """What the machine is doing."""

    IDLE = "idle"  # not started
    CONNECTING = "connecting"  # an attempt is under way
    OPEN = "open"  # a stream is open, healthy or not yet
    WAITING = "waiting"  # for the delay before a retry
    POLLING = "polling"  # polling only, for the fallback period
    SUSPENDED = "suspended"  # attempts used up, waits for a person or an agent
    DISABLED = "disabled"  # by a person, an agent or the settings
    STOPPED = "stopped"  # for good


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The figures of docs/protocol.md, "What the client does". Times in seconds. Raises `ValueError`."""

    healthy_after: float = 30.0
    reconnect_delays: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    reconnect_jitter: float = 0.10  # the largest share of the delay that is added to it
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
        """Return whether attempts that a timer begins count towards `attempts_per_minute` (rule 11)."""
        return min(self.reconnect_delays) >= _SLOW_DELAY and self.fallback_seconds >= _SLOW_FALLBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """The state of the machine. Times are those of `now`; `None` means that there is no such time at present."""

    limits: Limits = field(default_factory=Limits)
    mode: Mode = Mode.IDLE
    attempt: int = 0  # the number of the latest attempt; 0: none yet
    consecutive_failures: int = 0  # attempts that did not become a healthy connection, since the last one that did
    retries: int = 0  # delays waited since the last healthy connection; the index of the next one
    always_falls_back: bool = False  # rule 5: each further failure begins another fallback period
    opened_at: float | None = None  # set exactly while OPEN
    healthy: bool = False  # the open stream has lasted for `healthy_after`
    # When the fallback period began. Set until the attempt after the period has ended, or the suspension has.
    fallback_started_at: float | None = None
    next_attempt_at: float | None = None  # set exactly while WAITING or POLLING
    token_refused: bool = False  # and no connection has been healthy since
    token_replaced: bool = False  # the token is not the one with which the latest attempt began
    reason: str = "not connected yet"  # why there is no stream, for people; "" exactly while OPEN
    first_attempt_ended: bool = False  # law 4: the first full sync waits for this, and for nothing else
    attempt_times: tuple[float, ...] = ()  # when the attempts began that count towards `attempts_per_minute`

    @property
    def reconnect_attempts(self) -> int:
        """Return the attempts since the last healthy connection, out of `limits.reconnect_attempts`.

        docs/protocol.md counts the same events under two names, one for each threshold.
        """
        return self.consecutive_failures

    @property
    def fallback_to_polling(self) -> bool:
        """Return whether it is POLLING, SUSPENDED, or in the attempt that ends a fallback period."""
        return self.fallback_started_at is not None


# Inputs: what happened.


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon is up. `enabled`: whether the settings, and the last action of a person or agent, want the stream."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake of that attempt succeeded."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """That attempt ended without a stream.

    `reason` is for people and must not contain the URL (law 14). `refused_token`: HTTP 401 or 403.
    `retry_after`: the seconds that a 429 asked us to wait; `None` if it named none.
    """

    attempt: int
    reason: str
    refused_token: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream of that attempt has ended, whichever side closed it.

    Fields as of `Failed`; `refused_token`: close code 1008 or 4401.
    """

    attempt: int
    reason: str
    refused_token: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; a timer may be due."""


@dataclass(frozen=True, slots=True)
class ReconnectRequested:
    """A person or an agent wants a new stream now."""


@dataclass(frozen=True, slots=True)
class TokenReplaced:
    """Attempts that begin from now on use another token."""


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


# Effects: what the driver does, in this order.


@dataclass(frozen=True, slots=True)
class Connect:
    """Begin an attempt with this number."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream of this attempt, or cancel the attempt. If it has ended already, do nothing."""

    attempt: int


@dataclass(frozen=True, slots=True)
class PollNow:
    """Begin a full sync now: there is no stream to learn from. `reason`: why not."""

    reason: str


Effect = Connect | CloseStream | PollNow
Decision = tuple[ConnectionState, tuple[Effect, ...]]


def next_wake(state: ConnectionState) -> float | None:
    """Return when the next `Tick` is needed; `None` if time alone changes nothing (an attempt has its own time-out)."""
    if state.mode is Mode.OPEN and state.opened_at is not None and not state.healthy:
        return state.opened_at + state.limits.healthy_after
    return state.next_attempt_at


def lasted_long_enough(state: ConnectionState, now: float) -> bool:
    """Return whether the open stream has lasted for `healthy_after`."""
    # The same sum as in `next_wake`. The difference of the times, rounded, may be a little short at that very moment,
    # and the machine would ask for ticks without end.
    return state.opened_at is not None and now >= state.opened_at + state.limits.healthy_after


def accepts_reconnect(state: ConnectionState) -> bool:
    """Return whether `ReconnectRequested` leads to a stream. Elsewhere it changes nothing; `reason` is why."""
    return state.mode not in (Mode.IDLE, Mode.DISABLED, Mode.STOPPED)


def recent_attempts(state: ConnectionState, now: float) -> tuple[float, ...]:
    """Return when the attempts began that count now towards `attempts_per_minute`."""
    return tuple(at for at in state.attempt_times if now < at + ATTEMPT_WINDOW)


def slot_free_in(state: ConnectionState, now: float) -> float:
    """Return the seconds until one more attempt may begin; 0.0: now."""
    limit = state.limits.attempts_per_minute
    recent = recent_attempts(state, now)
    return 0.0 if len(recent) < limit else recent[-limit] + ATTEMPT_WINDOW - now
