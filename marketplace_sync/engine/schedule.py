"""When a full pass over the listing is begun, and why.

Its rules, from DESIGN.md, laws 4, 5, 6 and 11:

 1. One pass at a time. A pass under way is never restarted: what is wanted while it runs is covered by one
    more pass after it, for it may have read its pages before the cause. What was wanted before a pass
    began is covered by that pass, whatever the pass was begun for.
 2. The first pass begins when the stream is up or its first attempt has failed, not before, whoever
    asks. Every later connect wants one pass.
 3. The poll interval counts from the end of the last pass, whatever asked for that one.
 4. A gap (something that was told was not applied) wants a pass `GAP_QUIET_SECONDS` after the last loss, but
    no loss waits longer than `GAP_MAX_WAIT_SECONDS` while others keep coming. Gap passes that follow one another
    stand further and further apart, up to that: slow noise must not cost more than a flood.
 5. A pass that failed covers nothing: it is tried again after a back-off, with all it was wanted for. Nothing
    but a person who asks is served before the back-off is over; it is over at once when what it failed of is mended.
 6. A person's request is answered by the end of a pass that began after it. All who wait when a pass begins share it.
    A failed pass is an answer too ("failed"), so requests, unlike all else, are not carried over to the retry.

`due` and `next_wake` only look. A loop begins what is due, and sleeps until `next_wake` or until something is told:

    order = schedule.due(now)
    if order is not None:
        schedule.sync_began(now)
        ...                                 # run it, then answer order.commands
        schedule.sync_ended(now, outcome)
"""

from dataclasses import dataclass
from enum import StrEnum

# Law 6: "begun 1 s after the last loss, or every 60 s while losses last".
GAP_QUIET_SECONDS = 1.0
GAP_MAX_WAIT_SECONDS = 60.0
# After this many failed passes in a row; the last one from there on. Never longer than the poll interval.
RETRY_DELAYS = (5.0, 10.0, 20.0, 40.0, 60.0)
# A server that asks us to stay away for longer than this is asked again all the same.
MAX_RETRY_AFTER_SECONDS = 3600.0


class Reason(StrEnum):
    """Why a pass is begun, for people. In the order in which one is named when there are several."""

    ASKED = "asked"  # a person or an agent triggered it
    RETRY = "retry"  # the last pass failed
    START = "start"  # the first one
    CONNECTED = "connected"  # the stream is open again
    FALLBACK = "fallback"  # polling only has begun
    CONFIRM = "confirm"  # a clean pass left absences to be proved by a second
    GAP = "gap"  # something was not applied
    POLL = "poll"  # the interval is over


class SyncOutcome(StrEnum):
    """How a pass ended."""

    DONE = "done"
    HELD = "held"  # done, with removals held back for approval
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # by ourselves: no fault of the marketplace, so no back-off


@dataclass(frozen=True, slots=True)
class SyncOrder:
    """A pass to begin: everything it is for, and the commands that its end answers."""

    reasons: tuple[Reason, ...]  # never empty
    commands: tuple[int, ...]

    @property
    def reason(self) -> Reason:
        """The one to show where there is room for one."""
        return self.reasons[0]


@dataclass(frozen=True, slots=True)
class _Gap:
    first_loss: float
    last_loss: float

    @property
    def due_at(self) -> float:
        return min(self.last_loss + GAP_QUIET_SECONDS, self.first_loss + GAP_MAX_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class _DueSync:
    """The pass under way, with what has to be given back if it covers nothing."""

    wants: dict[Reason, float]
    gap: _Gap | None
    commands: tuple[int, ...]
    openings: int  # streams opened before it began


class Schedule:
    """The wants and the pass under way. `poll_interval` in seconds. All times are those of `now`, which never falls."""

    def __init__(self, *, poll_interval: float) -> None:
        self._poll_interval = poll_interval
        self._released = False  # rule 2
        self._wants: dict[Reason, float] = {}  # since when; a gap and the interval have times of their own
        self._commands: dict[int, None] = {}  # an ordered set
        self._gap: _Gap | None = None
        self._running: _DueSync | None = None
        self._last_ended_at: float | None = None
        self._failures = 0  # failed passes in a row
        self._retry_at = 0.0  # means something while _failures is not 0
        self._gap_begun_at = float("-inf")  # the last pass that a gap was a reason for
        self._gap_spacing = 0.0  # seconds from there to the next such pass, at least
        self._openings = 0
        self._caught_up_with = 0  # the opening that the last good pass came after

    # What happened.

    def stream_opened(self, now: float) -> None:
        """A stream is open: what was sent while there was none is only in the listing."""
        self._openings += 1
        self._want(Reason.CONNECTED if self._released else Reason.START, now)
        self._released = True

    def first_attempt_failed(self, now: float) -> None:
        """There is no stream to wait for, or none is wanted. Only the first call counts."""
        if not self._released:
            self._released = True
            self._want(Reason.START, now)

    def poll_now(self, now: float, why: Reason = Reason.FALLBACK) -> None:
        """A pass at once, for a reason of our own. It stands in for `first_attempt_failed`."""
        self._released = True
        self._want(why, now)

    def mended(self, now: float) -> None:
        """What the last pass failed of is no more, as when a refused token was replaced: no back-off is left."""
        self._retry_at = min(self._retry_at, now)

    def loss(self, now: float) -> None:
        """Something that was told was not applied. Cheap: called for every message of a flood."""
        self._gap = _Gap(now if self._gap is None else self._gap.first_loss, now)

    def asked(self, now: float, *commands: int) -> None:
        """Someone triggers a pass: at once, even in the back-off after a failure. `commands`: ids of their rows."""
        self._commands.update(dict.fromkeys(commands))
        self._want(Reason.ASKED, now)

    def confirm_needed(self, now: float) -> None:
        """A clean pass left absences unproved (law 5); the second pass follows at once."""
        self._want(Reason.CONFIRM, now)

    def sync_began(self, now: float) -> SyncOrder:
        """Begin what is due, and give it. Raises `RuntimeError` when nothing is, or a pass is under way."""
        order = self.due(now)
        if order is None:
            raise RuntimeError("no pass is due" if self._running is None else "a pass is under way")
        if Reason.POLL in order.reasons:
            self._want(Reason.POLL, now)  # so that it is given back with the rest
        if self._gap is not None:
            # Twice the widest spacing: the first minute without a loss is not yet the end of the noise.
            again = now - self._gap_begun_at <= 2 * GAP_MAX_WAIT_SECONDS
            self._gap_spacing = min(2 * self._gap_spacing, GAP_MAX_WAIT_SECONDS) if again else GAP_QUIET_SECONDS
            self._gap_begun_at = now
        self._running = _DueSync(self._wants, self._gap, order.commands, self._openings)
        self._wants, self._gap, self._commands = {}, None, {}
        return order

    def sync_ended(self, now: float, outcome: SyncOutcome, retry_after: float | None = None) -> None:
        """The pass under way has ended. Raises `RuntimeError` when there is none.

        `retry_after`: with FAILED, seconds that the marketplace asked us to wait; `None`: it said nothing.
        """
        if self._running is None:
            raise RuntimeError("no pass is under way")
        ended, self._running = self._running, None
        self._last_ended_at = now
        if outcome in (SyncOutcome.DONE, SyncOutcome.HELD):
            self._failures = 0
            self._caught_up_with = ended.openings
            return
        self._take_back(ended, requests_too=outcome is SyncOutcome.INTERRUPTED)
        if outcome is SyncOutcome.FAILED:
            wait = min(RETRY_DELAYS[min(self._failures, len(RETRY_DELAYS) - 1)], self._poll_interval)
            if retry_after is not None:
                wait = max(wait, min(retry_after, MAX_RETRY_AFTER_SECONDS))
            self._failures += 1
            self._retry_at = now + wait

    # What to do.

    def due(self, now: float) -> SyncOrder | None:
        """The pass to begin now; `None` while one runs and while none is due."""
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
        """When `due` will have an answer; past, when it has one. `None`: only something told can bring one."""
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
        """Whether a pass is under way."""
        return self._running is not None

    @property
    def caught_up(self) -> bool:
        """A pass that began after the latest stream opened has ended, done or held. False before any opened."""
        return self._openings > 0 and self._caught_up_with == self._openings

    def _want(self, reason: Reason, now: float) -> None:
        self._wants.setdefault(reason, now)

    def _poll_at(self) -> float:
        return float("inf") if self._last_ended_at is None else self._last_ended_at + self._poll_interval

    def _take_back(self, ended: _DueSync, *, requests_too: bool) -> None:
        kept = {reason: since for reason, since in ended.wants.items() if requests_too or reason is not Reason.ASKED}
        self._wants |= kept  # the older time wins: wanted since then
        if ended.gap is not None:
            self._gap = _Gap(ended.gap.first_loss, (self._gap or ended.gap).last_loss)
        if requests_too:
            self._commands = dict.fromkeys((*ended.commands, *self._commands))
