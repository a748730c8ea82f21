"""How fast messages are taken from the stream, and how many requests are sent."""

from collections import deque


class TokenBucket:
    """Lets `rate` messages a second through on average, and at most `burst` in one instant. Starts full.

    `burst` is one second's worth where it is not given (PROTOCOL.md), and never less than one message, or a
    rate below one a second would let none through. `rate` 0: no limit.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = max(1.0, rate if burst is None else burst)
        self._tokens = self._burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more message is within the rate; if so, it is counted."""
        if self._rate <= 0:
            return True
        if self._at is not None and now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RequestBudget:
    """At most `per_minute` requests in any `window` seconds, all at once if need be. `per_minute` 0: no limit.

    The server counts requests when they reach it, some time between our sending and its answer; a window that
    slides over the times of sending could let it see more than N: one slow request sent at 0 s and received
    at 9 s, then N more at 60 s, are N+1 within 51 s of its clock. So a slot is taken by `reserve`, held while the
    request is under way, however long that takes, and free again only `window` seconds after `finish`.
    Then N holds for the server too: of any requests that reached it within less than one window, take the one
    sent last. Each other one was at that moment either under way or answered less than a window ago, for it reached the
    server before it was answered; so each held a slot, and there are N.

    Single fetches may hold `single_fetch_share` of the slots at most, so that a stream of incomplete
    ratings leaves room for passes. Every `reserve` that answered 0.0 needs exactly one `finish`, in a `finally`.
    Slots are alike, so none is named. Memory: one float for each slot, two for a single fetch's.
    """

    def __init__(self, per_minute: int, window: float = 60.0, single_fetch_share: int = 20) -> None:
        self._all = _Slots(per_minute, window)
        self._single = _Slots(single_fetch_share, window)
        self._limited = per_minute > 0
        self._paused_until = float("-inf")

    def reserve(self, now: float, *, single: bool = False) -> float:
        """0.0: a slot was taken, send the request. Else nothing was, and in so many seconds one may be free.

        "May": others may take it first, or requests under way hold theirs for longer. Ask again then.
        `single`: a fetch of one skill, as against a page of a pass.
        """
        wait = self.wait(now, single=single)
        if wait == 0.0 and self._limited:
            self._all.under_way += 1
            self._single.under_way += single
        return wait

    def wait(self, now: float, *, single: bool = False) -> float:
        """What `reserve` would answer; takes nothing."""
        pause = self._paused_until - now
        if not self._limited:
            return max(0.0, pause)
        return max(0.0, pause, self._all.wait(now), self._single.wait(now) if single else 0.0)

    def finish(self, now: float, *, single: bool = False) -> None:
        """A request that `reserve` let through, of the same kind, has its answer or was given up.

        Raises `RuntimeError` when none of that kind is under way.
        """
        if not self._limited:
            return
        singles = self._single.under_way
        if (singles if single else self._all.under_way - singles) == 0:
            raise RuntimeError("finish without a reserve")
        self._all.finish(now)
        if single:
            self._single.finish(now)

    def pause_until(self, at: float) -> None:
        """Let nothing through before `at`, as a `Retry-After` demands. A shorter pause never cuts a longer one."""
        self._paused_until = max(self._paused_until, at)

    def left(self, now: float) -> int | None:
        """Requests that could be sent at this moment: 0 during a pause; `None`: as many as one likes."""
        if now < self._paused_until:
            return 0
        return self._all.free(now) if self._limited else None


class _Slots:
    """`size` slots: under way, or answered less than `window` ago, or free."""

    def __init__(self, size: int, window: float) -> None:
        self._size = size
        self._window = window
        self.under_way = 0
        self._answered: deque[float] = deque()  # times of answers, oldest first

    def finish(self, now: float) -> None:
        self.under_way -= 1
        self._answered.append(now)

    def free(self, now: float) -> int:
        while self._answered and self._answered[0] + self._window <= now:
            self._answered.popleft()
        return self._size - self.under_way - len(self._answered)

    def wait(self, now: float) -> float:
        """0.0 when one is free, else the seconds until the first may be."""
        if self.free(now) > 0:
            return 0.0
        # One that is under way is answered now at the earliest, so it is free a whole window later.
        return self._answered[0] + self._window - now if self._answered else self._window
