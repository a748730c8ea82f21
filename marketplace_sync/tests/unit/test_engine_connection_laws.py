"""The connection machine: laws over random histories."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marketplace_sync.engine.connection import decide
from marketplace_sync.engine.connection_state import (
    ATTEMPT_WINDOW,
    CloseStream,
    Connect,
    ConnectionState,
    DisableRequested,
    EnableRequested,
    Failed,
    Input,
    Limits,
    Lost,
    Mode,
    Opened,
    ReconnectRequested,
    Started,
    StopRequested,
    Tick,
    TokenReplaced,
    next_wake,
)
from marketplace_sync.tests.support.connection_machine import assert_consistent


class AnyHistory(RuleBasedStateMachine):
    """A simulated driver: attempts that open, fail and drop, late reports, actions, early and late timers."""

    @initialize(
        limits=st.sampled_from(
            [
                Limits(),
                Limits(fallback_after_failures=100),
                Limits(healthy_after=0.0),
                Limits(reconnect_delays=(0.0,), reconnect_attempts=3, fallback_seconds=2.0),
                Limits(reconnect_delays=(1.0,), reconnect_attempts=10**6, attempts_per_minute=1),
            ]
        ),
        enabled=st.booleans(),
    )
    def start(self, limits: Limits, enabled: bool) -> None:
        self.now = 0.0
        self.state = ConnectionState(limits=limits)
        self.under_way: set[int] = set()  # attempts and streams that are there
        self.written_off: list[int] = []
        self.connects: list[float] = []  # those that the limit counts
        self.draw = 0.0
        self.send(Started(enabled))

    def send(self, event: Input) -> None:
        before = self.state
        self.state, effects = decide(before, event, now=self.now, draw=self.draw)
        for effect in effects:
            match effect:
                case CloseStream(attempt):
                    self.under_way.discard(attempt)
                    self.written_off.append(attempt)
                case Connect(attempt):
                    assert not self.under_way, "two attempts at a time"
                    assert attempt > before.attempt
                    self.under_way.add(attempt)
                    if self.state.limits.counts_retries or not isinstance(event, Tick):
                        self.connects.append(self.now)
        if before.mode is Mode.SUSPENDED and self.state.mode is not Mode.SUSPENDED:
            assert isinstance(event, ReconnectRequested | TokenReplaced | DisableRequested | StopRequested)
            assert before.token_refused or not isinstance(event, TokenReplaced)
        if before.mode is Mode.STOPPED:
            assert self.state == before

    def report_end(self, event: Failed | Lost) -> None:
        if event.attempt in self.under_way:
            self.under_way.remove(event.attempt)
            self.written_off.append(event.attempt)
        self.send(event)

    @rule(draw=st.floats(0, 1))
    def another_draw(self, draw: float) -> None:
        self.draw = draw

    @precondition(lambda self: self.state.mode is Mode.CONNECTING)
    @rule()
    def opens(self) -> None:
        self.send(Opened(self.state.attempt))

    @precondition(lambda self: bool(self.under_way))
    @rule(lost=st.booleans(), refused=st.booleans(), retry_after=st.none() | st.floats(0, 9000))
    def ends(self, lost: bool, refused: bool, retry_after: float | None) -> None:
        self.report_end((Lost if lost else Failed)(self.state.attempt, "ended", refused, retry_after))

    @precondition(lambda self: self.state.mode in (Mode.CONNECTING, Mode.WAITING))
    @rule(accept=st.booleans())
    def one_more_failure(self, accept: bool) -> None:
        if self.state.mode is Mode.WAITING:
            self.sleep_until_the_wake()
        if accept:
            self.send(Opened(self.state.attempt))
        self.report_end(Lost(self.state.attempt, "dropped"))

    @precondition(lambda self: bool(self.written_off))
    @rule(data=st.data())
    def late_report(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.written_off))
        before = self.state
        reports: list[Input] = [Opened(attempt), Failed(attempt, "late", True), Lost(attempt, "late")]
        self.send(data.draw(st.sampled_from(reports)))
        assert self.state == before

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 30.0, 600.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.send(Tick())

    @precondition(lambda self: next_wake(self.state) is not None)
    @rule()
    def sleep_until_the_wake(self) -> None:
        wake = next_wake(self.state)
        assert wake is not None
        self.now = max(self.now, wake)
        before = self.state
        self.send(Tick())
        assert self.state != before, "a wake that does nothing would spin"

    @rule(event=st.sampled_from([ReconnectRequested(), DisableRequested(), EnableRequested(), TokenReplaced()]))
    def somebody_acts(self, event: Input) -> None:
        self.send(event)

    @rule(event=st.sampled_from([ReconnectRequested(), EnableRequested(), TokenReplaced()]), times=st.integers(5, 30),
          opens=st.booleans())  # fmt: skip
    def many_act_in_one_instant(self, event: Input, times: int, opens: bool) -> None:
        for _ in range(times):
            if isinstance(event, EnableRequested):
                self.send(DisableRequested())
            self.send(event)
            if opens and self.state.mode is Mode.CONNECTING:
                self.send(Opened(self.state.attempt))
            self.now += 0.01

    @precondition(lambda self: len(self.written_off) > 15)
    @rule()
    def stops(self) -> None:
        self.send(StopRequested())

    @invariant()
    def is_consistent(self) -> None:
        assert_consistent(self.state)

    @invariant()
    def what_is_under_way_is_the_latest_attempt(self) -> None:
        busy = self.state.mode in (Mode.CONNECTING, Mode.OPEN)
        assert self.under_way == ({self.state.attempt} if busy else set())

    @invariant()
    def something_will_happen(self) -> None:
        still = (Mode.STOPPED, Mode.DISABLED, Mode.SUSPENDED, Mode.OPEN, Mode.CONNECTING)
        assert self.state.mode in still or next_wake(self.state) is not None

    @invariant()
    def at_most_ten_attempts_begin_per_minute(self) -> None:
        limit = self.state.limits.attempts_per_minute
        if self.connects:
            assert sum(at > self.connects[-1] - 60 for at in self.connects) <= limit

    @invariant()
    def the_next_attempt_is_not_later_than_the_limit_demands(self) -> None:
        if self.state.reason.endswith("the next one follows") and self.state.next_attempt_at is not None:
            assert self.state.next_attempt_at <= self.now + ATTEMPT_WINDOW


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
