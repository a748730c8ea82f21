"""The connection machine: every mode with every input, the walk of the delays, and laws over random histories."""

from dataclasses import fields
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from marketplace_sync.engine.connection import TABLE as TABLE_OF_TRANSITIONS
from marketplace_sync.engine.connection import decide
from marketplace_sync.engine.connection_state import (
    ATTEMPT_WINDOW,
    CloseStream,
    Connect,
    ConnectionState,
    DisableRequested,
    Effect,
    EnableRequested,
    Failed,
    Input,
    Limits,
    Lost,
    Mode,
    Opened,
    PollNow,
    ReconnectRequested,
    Started,
    StopRequested,
    Tick,
    TokenReplaced,
    accepts_reconnect,
    next_wake,
    slot_free_in,
)

LIMITS = Limits(reconnect_jitter=0.0)
NO_FALLBACK = Limits(reconnect_jitter=0.0, fallback_after_failures=10**6, reconnect_attempts=10**6)


class Driven:
    """A machine with a clock; remembers its effects."""

    def __init__(self, limits: Limits = LIMITS, now: float = 1000.0) -> None:
        self.state = ConnectionState(limits=limits)
        self.now = now

    def tell(self, event: Input, draw: float = 0.0) -> tuple[Effect, ...]:
        self.state, effects = decide(self.state, event, now=self.now, draw=draw)
        assert_consistent(self.state)
        return effects

    def fail(self, **kind: object) -> tuple[Effect, ...]:
        return self.tell(Failed(self.state.attempt, "refused", **kind))  # type: ignore[arg-type]

    def open(self) -> tuple[Effect, ...]:
        return self.tell(Opened(self.state.attempt))

    def lose(self, after: float = 0.0, **kind: object) -> tuple[Effect, ...]:
        self.now += after
        return self.tell(Lost(self.state.attempt, "closed", **kind))  # type: ignore[arg-type]

    def wait(self) -> float:
        """Sleep until the next wake, tick, and give how long it was."""
        wake = next_wake(self.state)
        assert wake is not None
        slept, self.now = wake - self.now, wake
        self.tell(Tick())
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
    """The machine in that mode, led there by inputs alone."""
    machine = Driven()
    if mode is Mode.IDLE:
        return machine
    machine.tell(Started(enabled=True))
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
            machine.tell(DisableRequested())
        case Mode.STOPPED:
            machine.tell(StopRequested())
    assert machine.state.mode is mode
    return machine


# What each input leads to, by mode. The letters are modes: Connecting Open Waiting Polling Disabled Stopped;
# "." stays as it is with no effect, "x" closes the stream that the report is about and stays, "X" closes the
# attempt or stream under way. Connecting brings Connect with the next number, Polling brings PollNow.
# The inputs named "old" are reports of an attempt before the latest.
TABLE = """
                  idle  connecting  open  waiting  polling  suspended  disabled  stopped
start             C     .           .     .        .        .          .         .
start-disabled    D     .           .     .        .        .          .         .
opened            x     O           .     x        x        x          x         x
opened-old        x     x           x     x        x        x          x         x
failed            .     W           W     .        .        .          .         .
failed-refused    .     P           P     .        .        .          .         .
failed-429        .     W           W     .        .        .          .         .
failed-old        .     .           .     .        .        .          .         .
lost              .     W           W     .        .        .          .         .
lost-refused      .     P           P     .        .        .          .         .
lost-old          .     .           .     .        .        .          .         .
tick-early        .     .           .     .        .        .          .         .
tick-due          .     .           O     C        C        .          .         .
reconnect         .     .           XC    C        C        C          .         .
token             .     .           .     .        C        .          .         .
disable           D     XD          XD    D        D        D          .         .
enable            .     .           .     .        .        .          C         .
stop              S     XS          XS    S        S        S          S         .
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(Mode(mode), name, cell) for name, *cells in ROWS for mode, cell in zip(HEAD, cells, strict=True)]
LETTERS = {mode.name[0]: mode for mode in Mode if mode not in (Mode.IDLE, Mode.SUSPENDED)}


def input_named(name: str, attempt: int) -> Input:
    name, _, variant = name.partition("-")
    attempt -= variant == "old"
    refused, retry_after = variant == "refused", 7.0 if variant == "429" else None
    inputs: dict[str, Input] = {
        "start": Started(enabled=variant != "disabled"),
        "opened": Opened(attempt),
        "failed": Failed(attempt, "no", refused, retry_after),
        "lost": Lost(attempt, "no", refused, retry_after),
        "tick": Tick(),
        "token": TokenReplaced(),
        "reconnect": ReconnectRequested(),
        "disable": DisableRequested(),
        "enable": EnableRequested(),
        "stop": StopRequested(),
    }
    return inputs[name]


@pytest.mark.parametrize(("mode", "name", "cell"), CELLS, ids=lambda value: str(value))
def test_every_input_in_every_mode(mode: Mode, name: str, cell: str) -> None:
    machine = reach(mode)
    before = machine.state
    event = input_named(name, before.attempt)
    if name == "tick-due":
        machine.now += 10_000
    effects = machine.tell(event)

    expected: list[Effect] = []
    if cell == "x":
        assert isinstance(event, Opened)
        expected.append(CloseStream(event.attempt))
    if cell[0] == "X":
        expected.append(CloseStream(before.attempt))
    target = LETTERS.get(cell[-1])
    if target is Mode.CONNECTING:
        expected.append(Connect(before.attempt + 1))
    if target is Mode.POLLING:
        expected.append(PollNow("no"))
    assert list(effects) == expected
    assert machine.state.mode is (target or mode)
    noted = {(Mode.CONNECTING, "reconnect"), (Mode.CONNECTING, "token"), (Mode.OPEN, "token")}
    if cell in (".", "x") and (mode, name) not in noted:
        assert machine.state == before


def test_the_table_is_whole() -> None:
    assert set(TABLE_OF_TRANSITIONS) == set(get_args(Input))
    assert {len(row) for row in TABLE_OF_TRANSITIONS.values()} == {len(Mode)}
    assert {(mode, name.split("-")[0]) for mode, name, _ in CELLS} == {
        (mode, name)
        for mode in Mode
        for name in ("start", "opened", "failed", "lost", "tick", "token", "reconnect", "disable", "enable", "stop")
    }
    assert len(fields(ConnectionState)) == 15  # a new field needs a look at assert_consistent


@pytest.mark.parametrize("accept_then_drop", [False, True], ids=["refuse", "accept-then-drop"])
def test_delays_walk_up_and_stay_at_the_last(accept_then_drop: bool) -> None:
    machine = Driven(NO_FALLBACK)
    machine.tell(Started(enabled=True))
    waits = []
    for _ in range(8):
        if accept_then_drop:
            machine.open()
            machine.lose(after=29.0)
        else:
            machine.fail()
        waits.append(machine.wait())
    assert waits == [1, 2, 4, 8, 16, 16, 16, 16]
    assert machine.state.consecutive_failures == 8


def test_after_a_healthy_connection_the_walk_begins_anew() -> None:
    machine = Driven(NO_FALLBACK)
    machine.tell(Started(enabled=True))
    for _ in range(3):
        machine.fail()
        machine.wait()
    machine.open()
    assert machine.state.consecutive_failures == 3  # accepted is not healthy
    assert machine.wait() == 30.0
    assert machine.state.healthy and machine.state.consecutive_failures == 0
    assert next_wake(machine.state) is None
    machine.lose(after=500.0)
    waits = [machine.wait()]
    machine.fail()
    waits.append(machine.wait())
    assert waits == [1, 2]
    assert machine.state.consecutive_failures == 1


def test_a_late_tick_does_not_turn_health_into_failure() -> None:
    machine = reach(Mode.OPEN)
    machine.lose(after=30.0)
    assert machine.state.consecutive_failures == 0
    machine = reach(Mode.OPEN)
    machine.lose(after=29.99)
    assert machine.state.consecutive_failures == 1


def test_health_is_decided_at_the_very_wake_whatever_the_rounding() -> None:
    machine = Driven(now=2.3)
    machine.tell(Started(enabled=True))
    machine.open()
    machine.wait()
    assert machine.now - 2.3 < 30.0  # that is why
    assert machine.state.healthy


def test_jitter_comes_on_top_of_the_delay_up_to_a_tenth() -> None:
    for draw, wait in ((0.0, 1.0), (0.5, 1.05), (1.0, 1.1)):
        machine = Driven(Limits())
        machine.tell(Started(enabled=True))
        machine.tell(Failed(1, "refused"), draw=draw)
        assert machine.state.next_attempt_at == pytest.approx(machine.now + wait)


def test_third_failure_polls_for_an_hour_and_each_later_one_for_another() -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    for _ in range(2):
        assert machine.fail() == ()
        machine.wait()
    for _ in range(3):
        assert machine.fail() == (PollNow("refused"),)
        assert (machine.state.mode, machine.state.fallback_started_at) == (Mode.POLLING, machine.now)
        assert machine.wait() == 3600.0
        assert (machine.state.mode, machine.state.fallback_to_polling) == (Mode.CONNECTING, True)
    machine.open()
    assert not machine.state.fallback_to_polling
    assert machine.lose(after=5.0) == (PollNow("closed"),)  # opened, but never healthy
    assert machine.state.mode is Mode.POLLING


def test_the_tenth_failure_rests_until_a_person_asks() -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    for _ in range(9):
        machine.fail()
        machine.wait()
    assert machine.fail() == (PollNow("refused"),)
    state = machine.state
    assert (state.mode, state.reconnect_attempts, state.next_attempt_at) == (Mode.SUSPENDED, 10, None)
    assert state.fallback_to_polling and next_wake(state) is None
    machine.now += 10**6
    assert machine.tell(Tick()) == ()
    assert machine.tell(ReconnectRequested()) == (Connect(11),)
    assert (machine.state.reconnect_attempts, machine.state.fallback_to_polling) == (0, False)
    machine.fail()
    assert machine.wait() == 1.0


def test_suspension_wins_over_a_refused_token_and_over_the_hour() -> None:
    machine = Driven(Limits(reconnect_attempts=2, fallback_after_failures=1))
    machine.tell(Started(enabled=True))
    machine.fail(refused_token=True)
    machine.wait()
    machine.fail(refused_token=True)
    assert machine.state.mode is Mode.SUSPENDED


def test_a_refused_token_leaves_one_attempt_an_hour_until_one_is_healthy() -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    assert machine.fail(refused_token=True) == (PollNow("refused"),)
    assert (machine.state.reason, machine.state.consecutive_failures) == ("refused", 1)
    assert machine.wait() == 3600.0
    machine.fail()  # the second failure alone would wait 2 s
    assert machine.wait() == 3600.0
    machine.open()
    machine.wait()
    machine.lose(after=1.0)
    assert machine.wait() == 1.0


def test_a_token_refused_after_health_is_no_failed_attempt_but_polls_for_an_hour() -> None:
    machine = reach(Mode.OPEN)
    machine.lose(after=100.0, refused_token=True)
    assert (machine.state.mode, machine.state.consecutive_failures) == (Mode.POLLING, 0)


@pytest.mark.parametrize("mode", [Mode.POLLING, Mode.SUSPENDED])
def test_a_new_token_is_tried_at_once_where_the_old_one_was_refused(mode: Mode) -> None:
    machine = Driven(LIMITS if mode is Mode.POLLING else Limits(reconnect_attempts=1))
    machine.tell(Started(enabled=True))
    machine.fail(refused_token=True)
    assert machine.state.mode is mode
    assert machine.tell(TokenReplaced()) == (Connect(2),)
    assert (machine.state.consecutive_failures, machine.state.fallback_to_polling) == (0, False)
    machine.fail(refused_token=mode is Mode.POLLING)
    assert machine.state.mode is mode  # one attempt, not one after the other


@pytest.mark.parametrize("mode", [Mode.WAITING, Mode.POLLING, Mode.SUSPENDED])
def test_a_new_token_mends_no_network(mode: Mode) -> None:
    attempts = {Mode.WAITING: 1, Mode.POLLING: 3, Mode.SUSPENDED: 10}[mode]
    machine = Driven()
    machine.tell(Started(enabled=True))
    for number in range(attempts):
        if number:
            machine.wait()
        machine.fail()
    before = machine.state
    assert before.mode is mode
    assert machine.tell(TokenReplaced()) == ()
    assert machine.state == before


def test_a_failure_in_between_does_not_make_a_refusal_forgotten() -> None:
    machine = reach(Mode.POLLING)
    machine.wait()
    machine.fail()  # the hour's attempt met a dead network
    assert machine.tell(TokenReplaced()) == (Connect(3),)


@pytest.mark.parametrize("opened", [False, True], ids=["at the handshake", "by a close"])
def test_the_refusal_of_a_token_that_was_replaced_meanwhile_is_no_news(opened: bool) -> None:
    machine = reach(Mode.OPEN if opened else Mode.CONNECTING)
    assert machine.tell(TokenReplaced()) == ()
    assert machine.lose(refused_token=True) == (Connect(2),)
    assert machine.state.consecutive_failures == 0
    assert machine.lose(refused_token=True) == (PollNow("closed"),)  # the new one's


def test_after_a_refusal_any_failure_with_the_old_token_gives_way_to_the_new_one() -> None:
    machine = reach(Mode.POLLING)
    machine.wait()
    machine.tell(TokenReplaced())
    assert machine.fail() == (Connect(3),)
    machine = Driven()
    machine.tell(Started(enabled=True))
    machine.tell(TokenReplaced())
    machine.fail()
    assert machine.state.mode is Mode.WAITING  # nothing was refused: the network's delays stay


def test_a_healthy_connection_forgets_the_refusal() -> None:
    machine = reach(Mode.POLLING)
    machine.wait()
    machine.open()
    machine.wait()
    for _ in range(3):
        machine.lose()
        machine.wait()
    machine.fail()
    assert machine.state.mode is Mode.POLLING
    assert machine.tell(TokenReplaced()) == ()


@pytest.mark.parametrize(
    ("retry_after", "wait"), [(None, 1), (0.5, 1), (-5, 1), (7, 7), (5000, 3600), (float("nan"), 1)]
)
def test_retry_after_lengthens_the_wait_up_to_the_fallback_time(retry_after: float | None, wait: float) -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    machine.fail(retry_after=retry_after)
    assert machine.wait() == wait


def test_retry_after_on_the_third_failure_polls_for_the_hour() -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    machine.fail()
    machine.wait()
    machine.fail()
    machine.wait()
    machine.fail(retry_after=99_999.0)
    assert machine.state.mode is Mode.POLLING
    assert machine.wait() == 3600.0


def test_a_reconnect_of_an_open_stream_ignores_the_end_of_the_old_one() -> None:
    machine = reach(Mode.OPEN)
    assert machine.tell(ReconnectRequested()) == (CloseStream(1), Connect(2))
    asked = machine.state
    assert machine.tell(Lost(1, "closed by us")) == ()
    assert machine.state == asked
    machine.open()
    assert machine.state.mode is Mode.OPEN


def test_a_reconnect_is_served_by_the_attempt_under_way_with_the_counters_anew() -> None:
    machine = Driven()
    machine.tell(Started(enabled=True))
    for _ in range(5):
        machine.fail()
        machine.wait()
    assert machine.state.fallback_to_polling
    assert machine.tell(ReconnectRequested()) == ()
    state = machine.state
    assert (state.mode, state.consecutive_failures, state.fallback_to_polling) == (Mode.CONNECTING, 0, False)
    machine.fail()
    assert machine.wait() == 1.0


def test_an_attempt_given_up_that_opens_after_all_is_closed_by_its_own_number() -> None:
    machine = reach(Mode.CONNECTING)
    assert machine.tell(DisableRequested()) == (CloseStream(1),)
    assert machine.tell(EnableRequested()) == (Connect(2),)
    assert machine.tell(Opened(1)) == (CloseStream(1),)
    assert machine.state.mode is Mode.CONNECTING


def test_the_first_attempt_is_over_when_it_opened_failed_or_is_not_wanted() -> None:
    for event in (Opened(1), Failed(1, "no"), DisableRequested()):
        machine = reach(Mode.CONNECTING)
        assert not machine.state.first_attempt_ended
        machine.tell(event)
        assert machine.state.first_attempt_ended
    machine = Driven()
    machine.tell(Started(enabled=False))
    assert machine.state.first_attempt_ended


@pytest.mark.parametrize("mode", list(Mode))
def test_a_reconnect_is_accepted_exactly_where_it_leads_to_a_stream(mode: Mode) -> None:
    machine = reach(mode)
    accepted = accepts_reconnect(machine.state)
    machine.tell(ReconnectRequested())
    assert accepted == (machine.state.mode is Mode.CONNECTING)


@pytest.mark.parametrize("wrong", [{"reconnect_delays": ()}, {"reconnect_attempts": 0}, {"fallback_after_failures": 0}])
def test_limits_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Limits(**wrong)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["reconnect", "disable and enable", "new token", "fail", "wait"]),
                          st.floats(0, 10), st.booleans()), max_size=60))  # fmt: skip
def test_nobody_brings_us_past_ten_attempts_a_minute(deeds: list[tuple[str, float, bool]]) -> None:
    machine = Driven(Limits(reconnect_delays=(1.0,), fallback_after_failures=50, reconnect_attempts=60))
    connects: list[float] = []

    def tell(event: Input) -> None:
        connects.extend(machine.now for effect in machine.tell(event) if isinstance(effect, Connect))

    tell(Started(enabled=True))
    for deed, after, opens in deeds:
        machine.now += after
        match deed:
            case "reconnect":
                tell(ReconnectRequested())
            case "disable and enable":
                tell(DisableRequested())
                tell(EnableRequested())
            case "new token":
                tell(Failed(machine.state.attempt, "refused", refused_token=True))
                tell(TokenReplaced())
            case "fail":
                tell(Lost(machine.state.attempt, "dropped"))
            case _:
                machine.now = max(machine.now, next_wake(machine.state) or 0.0)
                tell(Tick())
        if opens and machine.state.mode is Mode.CONNECTING:
            tell(Opened(machine.state.attempt))
    assert all(sum(start <= at < start + 60 for at in connects) <= 10 for start in connects)


def with_ten_attempts() -> Driven:
    """An open stream, the tenth within a second."""
    machine = Driven()
    machine.tell(Started(enabled=True))
    for _ in range(9):
        machine.open()
        machine.now += 0.1
        machine.tell(ReconnectRequested())
    machine.open()
    return machine


def test_an_open_stream_is_not_given_up_for_an_attempt_that_has_no_place() -> None:
    machine = with_ten_attempts()
    before = machine.state
    assert machine.tell(ReconnectRequested()) == ()
    assert machine.state == before
    assert slot_free_in(machine.state, machine.now) == pytest.approx(ATTEMPT_WINDOW - 0.9)
    machine.now += ATTEMPT_WINDOW - 0.9
    assert machine.tell(ReconnectRequested()) == (CloseStream(10), Connect(11))


def test_a_reconnect_without_a_place_is_tried_as_soon_as_there_is_one() -> None:
    machine = with_ten_attempts()
    machine.lose()
    assert machine.tell(ReconnectRequested()) == ()
    assert (machine.state.mode, machine.state.reconnect_attempts) == (Mode.WAITING, 0)
    assert "10 connection attempts" in machine.state.reason
    assert machine.wait() == pytest.approx(ATTEMPT_WINDOW - 0.9)
    assert (machine.state.mode, machine.state.attempt) == (Mode.CONNECTING, 11)


def test_retries_that_are_set_faster_than_the_limit_take_no_place() -> None:
    machine = Driven(Limits(reconnect_delays=(0.01,), reconnect_jitter=0.0, fallback_after_failures=20,
                            reconnect_attempts=20))  # fmt: skip
    machine.tell(Started(enabled=True))
    for _ in range(19):
        machine.fail()
        assert machine.wait() == pytest.approx(0.01)
    machine.fail()
    assert machine.state.mode is Mode.SUSPENDED
    for number in range(21, 30):
        assert machine.tell(ReconnectRequested()) == (Connect(number),)
        machine.fail()
    assert machine.tell(ReconnectRequested()) == ()


def test_enabling_without_a_place_waits_for_one() -> None:
    machine = with_ten_attempts()
    machine.tell(DisableRequested())
    assert machine.tell(EnableRequested()) == ()
    assert machine.state.mode is Mode.WAITING
    machine.wait()
    assert machine.state.mode is Mode.CONNECTING


class AnyHistory(RuleBasedStateMachine):
    """A world around the machine: attempts that open, fail and drop, late reports, people, timers early and late."""

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
        self.tell(Started(enabled))

    def tell(self, event: Input) -> None:
        before = self.state
        self.state, effects = decide(before, event, now=self.now, draw=self.draw)
        for effect in effects:
            match effect:
                case CloseStream(attempt):
                    self.under_way.discard(attempt)
                    self.written_off.append(attempt)
                case Connect(attempt):
                    assert not self.under_way, "two attempts at once"
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
        self.tell(event)

    @rule(draw=st.floats(0, 1))
    def another_draw(self, draw: float) -> None:
        self.draw = draw

    @precondition(lambda self: self.state.mode is Mode.CONNECTING)
    @rule()
    def opens(self) -> None:
        self.tell(Opened(self.state.attempt))

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
            self.tell(Opened(self.state.attempt))
        self.report_end(Lost(self.state.attempt, "dropped"))

    @precondition(lambda self: bool(self.written_off))
    @rule(data=st.data())
    def late_report(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self.written_off))
        before = self.state
        reports: list[Input] = [Opened(attempt), Failed(attempt, "late", True), Lost(attempt, "late")]
        self.tell(data.draw(st.sampled_from(reports)))
        assert self.state == before

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 30.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    @precondition(lambda self: next_wake(self.state) is not None)
    @rule()
    def sleep_until_the_wake(self) -> None:
        wake = next_wake(self.state)
        assert wake is not None
        self.now = max(self.now, wake)
        before = self.state
        self.tell(Tick())
        assert self.state != before, "a wake that does nothing would spin"

    @rule(event=st.sampled_from([ReconnectRequested(), DisableRequested(), EnableRequested(), TokenReplaced()]))
    def a_person_asks(self, event: Input) -> None:
        self.tell(event)

    @rule(event=st.sampled_from([ReconnectRequested(), EnableRequested(), TokenReplaced()]), times=st.integers(5, 30),
          opens=st.booleans())  # fmt: skip
    def many_ask_at_once(self, event: Input, times: int, opens: bool) -> None:
        for _ in range(times):
            if isinstance(event, EnableRequested):
                self.tell(DisableRequested())
            self.tell(event)
            if opens and self.state.mode is Mode.CONNECTING:
                self.tell(Opened(self.state.attempt))
            self.now += 0.01

    @precondition(lambda self: len(self.written_off) > 15)
    @rule()
    def stops(self) -> None:
        self.tell(StopRequested())

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
    def ten_attempts_a_minute_are_kept_whoever_asks(self) -> None:
        limit = self.state.limits.attempts_per_minute
        if self.connects:
            assert sum(at > self.connects[-1] - 60 for at in self.connects) <= limit

    @invariant()
    def the_next_attempt_is_no_longer_off_than_its_place(self) -> None:
        if self.state.reason.endswith("the next one follows") and self.state.next_attempt_at is not None:
            assert self.state.next_attempt_at <= self.now + ATTEMPT_WINDOW


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["refuse", "drop", "stand"]),
            st.floats(0, 40),
            st.floats(0, 1),
            st.none() | st.floats(0, 90),
        ),
        min_size=12,
        max_size=60,
    )
)
def test_no_server_brings_us_past_ten_attempts_a_minute(
    deeds: list[tuple[str, float, float, float | None]],
) -> None:
    machine = Driven(Limits(fallback_after_failures=50))  # the defaults poll for an hour long before
    connects: list[float] = []
    machine.tell(Started(enabled=True))
    for deed, after, draw, retry_after in deeds:
        connects.append(machine.now)
        if deed == "refuse":
            machine.tell(Failed(machine.state.attempt, "refused", retry_after=retry_after), draw)
        else:
            machine.open()
            machine.now += after if deed == "stand" else 0.0
            machine.tell(Lost(machine.state.attempt, "dropped"), draw)
        if machine.state.mode is Mode.SUSPENDED:
            break
        machine.wait()
    assert all(sum(start <= at < start + 60 for at in connects) <= 10 for start in connects)
