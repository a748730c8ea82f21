"""Decide when a full sync begins, and why (laws 4, 5, 6 and 11).

 1. One full sync at a time, never restarted. A cause that comes while one runs is covered by one more after it, for the
    running one may have read its pages before the cause. A cause that came before a sync began is covered by that sync,
    whatever it was begun for.
 2. The first full sync begins when the stream is open or its first attempt has failed, and no earlier, even for a
    command. Every later connect causes one full sync.
 3. The poll interval counts from the end of the last full sync, whatever its cause was.
 4. A gap (something was not applied) causes a full sync `GAP_QUIET_SECONDS` after the last loss. While losses continue,
    none waits longer than `GAP_MAX_WAIT_SECONDS`. The time between successive syncs for gaps grows up to that maximum,
    so that a slow series of losses costs no more syncs than a flood.
 5. A failed full sync covers none of its causes: it is retried for all of them after a back-off. Only a command is
    served during the back-off. The back-off ends when the cause of the failure is removed.
 6. The end of a full sync that began after a command answers it. All commands that wait when a sync begins share it. A
    failure is an answer too ("failed"), so commands, unlike everything else, are not carried over to the retry.

`due` and `next_wake` change nothing. A loop begins what is due, and sleeps until `next_wake` or until something
happens:

    order = schedule.due(now)
    if order is not None:
        schedule.sync_began(now)
        ...                                 # run it, then answer order.commands
        schedule.sync_ended(now, outcome)
"""

from dataclasses import dataclass
from enum import StrEnum

# Law 6: a gap ends in one full sync, 1 s after the last loss, or every 60 s while losses last.
GAP_QUIET_SECONDS = 1.0
GAP_MAX_WAIT_SECONDS = 60.0
# Seconds before the retry, by the number of failures in a row; the last value from there on. Never longer than the poll
# interval.
RETRY_DELAYS = (5.0, 10.0, 20.0, 40.0, 60.0)
# A longer Retry-After is cut to this.
MAX_RETRY_AFTER_SECONDS = 3600.0


class Reason(StrEnum):
    """The cause of a full sync, for people. Of several causes, the first in this order is shown."""

    ASKED = "asked"  # a person or an agent commanded it
    RETRY = "retry"  # the last full sync failed
    START = "start"  # the first one
    CONNECTED = "connected"  # the stream is open again
    FALLBACK = "fallback"  # polling has replaced the stream
    CONFIRM = "confirm"  # a clean full sync left absences for a second one to prove
    GAP = "gap"  # something was not applied
    POLL = "poll"  # the interval is over


class SyncOutcome(StrEnum):
    """The outcome of a full sync."""

    DONE = "done"
    HELD = "held"  # done, with removals on hold for approval
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # by ourselves: no failure of the marketplace, so no back-off


@dataclass(frozen=True, slots=True)
class SyncOrder:
    """A full sync to begin: all of its causes, and the commands that its end answers."""

    reasons: tuple[Reason, ...]  # never empty
    commands: tuple[int, ...]

    @property
    def reason(self) -> Reason:
        """Return the reason to show where there is room for one."""
        return self.reasons[0]


@dataclass(frozen=True, slots=True)
class _Gap:
    first_loss: float
    last_loss: float

    @property
    def due_at(self) -> float:
        return min(self.last_loss + GAP_QUIET_SECONDS, self.first_loss + GAP_MAX_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class _RunningSync:
    """The full sync under way, with what has to be restored if it covers nothing."""

    wants: dict[Reason, float]
    gap: _Gap | None
    commands: tuple[int, ...]
    openings: int  # streams opened before it began


class Schedule:
    """The causes for full syncs, and the one under way. `poll_interval`: seconds; `now`: a monotonic clock."""

    def __init__(self, *, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self._released = False  # rule 2
        self._wants: dict[Reason, float] = {}  # since when; a gap and the poll interval have times of their own
        self._commands: dict[int, None] = {}  # an ordered set
        self._gap: _Gap | None = None
        self._running: _RunningSync | None = None
        self._last_ended_at: float | None = None
        self._failures = 0  # failed full syncs in a row
        self._retry_at = 0.0  # means something while _failures is not 0
        self._gap_begun_at = float("-inf")  # the last full sync that a gap was a reason for
        self._gap_spacing = 0.0  # seconds from there to the next such sync, at least
        self._openings = 0
        self._caught_up_with = 0  # the opening that the last completed sync came after

    # Inputs.

    def stream_opened(self, now: float) -> None:
        """Note that a stream is open: what was sent while there was none is only in the listing."""
        self._openings += 1
        self._want(Reason.CONNECTED if self._released else Reason.START, now)
        self._released = True

    def first_attempt_failed(self, now: float) -> None:
        """Note that there is no stream to wait for, or none is wanted. Only the first call counts."""
        if not self._released:
            self._released = True
            self._want(Reason.START, now)

    def poll_now(self, now: float, why: Reason = Reason.FALLBACK) -> None:
        """Want a full sync now, for a reason of our own. It replaces `first_attempt_failed`."""
        self._released = True
        self._want(why, now)

    def cause_removed(self, now: float) -> None:
        """End the back-off: the cause of the last failure is gone, as when a refused token was replaced."""
        self._retry_at = min(self._retry_at, now)

    def loss(self, now: float) -> None:
        """Note that something was not applied. Cheap: called for every message of a flood."""
        self._gap = _Gap(now if self._gap is None else self._gap.first_loss, now)

    def commanded(self, now: float, *commands: int) -> None:
        """Want a full sync now, even in the back-off after a failure. `commands`: ids of their rows."""
        self._commands.update(dict.fromkeys(commands))
        self._want(Reason.ASKED, now)

    def confirm_needed(self, now: float) -> None:
        """Want a second full sync now: a clean one left absences unproved (law 5)."""
        self._want(Reason.CONFIRM, now)

    def sync_began(self, now: float) -> SyncOrder:
        """Begin what is due, and return it. Raise `RuntimeError` if nothing is due or a full sync is under way."""
        order = self.due(now)
        if order is None:
            raise RuntimeError("no full sync is due" if self._running is None else "a full sync is under way")
        if Reason.POLL in order.reasons:
            self._want(Reason.POLL, now)  # so that it is restored with the rest
        if self._gap is not None:
            # Twice the widest spacing: the first minute without a loss is not yet the end of the noise.
            again = now - self._gap_begun_at <= 2 * GAP_MAX_WAIT_SECONDS
            self._gap_spacing = min(2 * self._gap_spacing, GAP_MAX_WAIT_SECONDS) if again else GAP_QUIET_SECONDS
            self._gap_begun_at = now
        self._running = _RunningSync(self._wants, self._gap, order.commands, self._openings)
        self._wants, self._gap, self._commands = {}, None, {}
        return order

    def sync_ended(self, now: float, outcome: SyncOutcome, retry_after: float | None = None) -> None:
        """Note the end of the full sync under way. Raise `RuntimeError` if there is none.

        `retry_after`: with FAILED, the seconds of the marketplace's Retry-After; `None`: it sent none.
        """
        if self._running is None:
            raise RuntimeError("no full sync is under way")
        ended, self._running = self._running, None
        self._last_ended_at = now
        if outcome in (SyncOutcome.DONE, SyncOutcome.HELD):
            self._failures = 0
            self._caught_up_with = ended.openings
            return
        self._restore(ended, commands_too=outcome is SyncOutcome.INTERRUPTED)
        if outcome is SyncOutcome.FAILED:
            wait = min(RETRY_DELAYS[min(self._failures, len(RETRY_DELAYS) - 1)], self._poll_interval)
            if retry_after is not None:
                wait = max(wait, min(retry_after, MAX_RETRY_AFTER_SECONDS))
            self._failures += 1
            self._retry_at = now + wait

    # Decisions.

    def due(self, now: float) -> SyncOrder | None:
        """Return the full sync to begin now; `None` while one runs or none is due."""
        wake = self.next_wake()
        if wake is None or now < wake:
            return None
        reasons = set(self._wants)
        if self._failures:
            reasons.add(Reason.RETRY)
        if self._gap is not None:
            reasons.add(Reason.GAP)
        if now >= self._poll_at():
            reasons.add(Reason.POLL)
        return SyncOrder(tuple(reason for reason in Reason if reason in reasons), tuple(self._commands))

    def next_wake(self) -> float | None:
        """Return when a full sync will be due (in the past if it is); `None` if only a new cause can make one due."""
        if self._running is not None or not self._released:
            return None
        if Reason.ASKED in self._wants:
            return self._wants[Reason.ASKED]
        if self._failures:
            return self._retry_at
        times = [*self._wants.values(), self._poll_at()]
        if self._gap is not None:
            times.append(max(self._gap.due_at, self._gap_begun_at + self._gap_spacing))
        return min(times)

    @property
    def running(self) -> bool:
        """Return whether a full sync is under way."""
        return self._running is not None

    @property
    def caught_up(self) -> bool:
        """Return whether a full sync that began after the latest opening is done; false before any opening."""
        return self._openings > 0 and self._caught_up_with == self._openings

    def _want(self, reason: Reason, now: float) -> None:
        self._wants.setdefault(reason, now)

    def _poll_at(self) -> float:
        return float("inf") if self._last_ended_at is None else self._last_ended_at + self._poll_interval

    def _restore(self, ended: _RunningSync, *, commands_too: bool) -> None:
        kept = {reason: since for reason, since in ended.wants.items() if commands_too or reason is not Reason.ASKED}
        self._wants |= kept  # the older time wins: wanted since then
        if ended.gap is not None:
            self._gap = _Gap(ended.gap.first_loss, (self._gap or ended.gap).last_loss)
        if commands_too:
            self._commands = dict.fromkeys((*ended.commands, *self._commands))
