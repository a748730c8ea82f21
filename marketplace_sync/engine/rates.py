"""Rate limits: for messages from the stream, and for requests to the marketplace."""

from collections import deque


class TokenBucket:
    """Accept `rate` messages per second on average, and at most `burst` in one instant. It starts full.

    By default `burst` is one second's worth (docs/protocol.md, "What the client does"). It is never less than one
    message, or a rate below one per second would accept none. `rate` 0: no limit.
    """

    def __init__(self, rate: float, burst: float | None = None) -> None:
        self._rate = rate
        self._burst = max(1.0, rate if burst is None else burst)
        self._tokens = self._burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Return whether one more message is within the rate; if so, count it."""
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
    """Allow at most `per_minute` requests in any `window` seconds, all in one instant if need be. 0: no limit.

    The server counts requests when they arrive, some time between our sending and its answer. A window that slides
    over the times of sending could let it see more than N: one slow request sent at 0 s that arrives at 9 s, then N
    more at 60 s, are N+1 within 51 s of its clock. So `reserve` takes a slot, the request occupies it while it is under
    way, however long that takes, and it is free again only `window` seconds after `finish`.

    Then N is kept on the server's side too. Of any requests that arrived there within less than one window, take the
    one sent last. Each other one was at that moment either under way or answered less than a window ago, because it
    arrived before it was answered. So each occupied a slot, and there are N slots.

    Single fetches may occupy `single_fetch_share` slots at most, so that a stream of incomplete ratings leaves room for
    full syncs. Each `reserve` that returned 0.0 needs exactly one `finish`, in a `finally`. Slots are interchangeable,
    so a request need not remember its slot. Memory: one float per slot, two for that of a single fetch.
    """

    def __init__(self, per_minute: int, window: float = 60.0, single_fetch_share: int = 20) -> None:
        self._all = _Slots(per_minute, window)
        self._single = _Slots(single_fetch_share, window)
        self._limited = per_minute > 0
        self._paused_until = float("-inf")

    def reserve(self, now: float, *, single: bool = False) -> float:
        """Take a slot and return 0.0, or return the seconds after which one may be free.

        "May": others may take it first, or requests under way may take longer. Call it again then.
        `single`: a fetch of one skill, and not a page of a full sync.
        """
        wait = self.wait(now, single=single)
        if wait == 0.0 and self._limited:
            self._all.under_way += 1
            self._single.under_way += single
        return wait

    def wait(self, now: float, *, single: bool = False) -> float:
        """Return what `reserve` would return; take nothing."""
        pause = self._paused_until - now
        if not self._limited:
            return max(0.0, pause)
        return max(0.0, pause, self._all.wait(now), self._single.wait(now) if single else 0.0)

    def finish(self, now: float, *, single: bool = False) -> None:
        """Note that a request of that kind, which `reserve` allowed, was answered or given up.

        Raises `RuntimeError` if none of that kind is under way.
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
        """Allow no request before `at`, as a `Retry-After` demands. A shorter pause never ends a longer one."""
        self._paused_until = max(self._paused_until, at)

    def left(self, now: float) -> int | None:
        """Return how many requests could be sent at this moment: 0 during a pause; `None` without a limit."""
        if now < self._paused_until:
            return 0
        return self._all.free(now) if self._limited else None


class _Slots:
    """Slots, `size` of them: each is under way, answered less than `window` seconds ago, or free."""

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
        """Return 0.0 if one is free, else the seconds until the first may be."""
        if self.free(now) > 0:
            return 0.0
        # A request under way is answered now at the earliest, so its slot is free a whole window later.
        return self._answered[0] + self._window - now if self._answered else self._window
