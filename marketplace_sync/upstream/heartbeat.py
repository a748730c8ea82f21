"""Decide when to ping the peer, and when an unanswered ping shows that it is dead. Pure: the time is an argument.

Theory of operation. Every `interval` seconds a ping is due, as a JSON message and as a protocol frame. A
pong of either kind answers it if it arrives after the ping and within `timeout` seconds. A frame names the
ping that it answers, and answers all before it too (RFC 6455, 5.5.3). A JSON pong names none, so it answers
every ping that is on its way; one that arrives while none is proves nothing. Messages are no pongs, and silence
between two pings is no problem: quiet is not dead.
"""

from collections import deque
from enum import Enum, auto


class Due(Enum):
    """The action that is due."""

    NOTHING = auto()
    PING = auto()
    DEATH = auto()  # a ping went unanswered for its time-out


class Pulse:
    """The heartbeat of one connection. Times are seconds of any one monotonic clock."""

    def __init__(self, *, interval: float, timeout: float, now: float) -> None:
        self.interval = interval
        self.timeout = timeout
        self._next_ping = now + interval
        self._serial = 0
        # (serial, sent at) of the pings on their way, oldest first; at most timeout / interval + 1.
        self._unanswered: deque[tuple[int, float]] = deque()

    @property
    def wake_at(self) -> float:
        """Return when to call `due` again: at the next ping, or at the end of the oldest ping's time-out."""
        if not self._unanswered:
            return self._next_ping
        return min(self._next_ping, self._unanswered[0][1] + self.timeout)

    def due(self, now: float) -> Due:
        """Return what has to be done at `now`. Call it again after doing that."""
        if self._unanswered and now >= self._unanswered[0][1] + self.timeout:
            return Due.DEATH
        return Due.PING if now >= self._next_ping else Due.NOTHING

    def ping(self, now: float) -> bytes:
        """Note a ping sent at `now`; return the payload of its frame."""
        self._serial += 1
        self._unanswered.append((self._serial, now))
        self._next_ping = now + self.interval
        return self._serial.to_bytes(8, "big")

    def hurry(self, now: float) -> None:
        """Make the next ping due now."""
        self._next_ping = now

    def pong(self, payload: bytes | None = None) -> bool:
        """Note a pong: a frame's `payload`, `None` for a JSON pong. Return whether it answers a ping of ours."""
        before = len(self._unanswered)
        if payload is None:
            self._unanswered.clear()
            return before > 0
        serial = int.from_bytes(payload, "big") if len(payload) == 8 else 0
        if not 0 < serial <= self._serial:
            return False
        while self._unanswered and self._unanswered[0][0] <= serial:
            self._unanswered.popleft()
        return len(self._unanswered) < before
