"""The connection machine: delays, fallback, suspension, tokens and reconnects."""

import pytest

from marketplace_sync.engine.connection_state import (
    CloseStream,
    Connect,
    DisableRequested,
    EnableRequested,
    Failed,
    Limits,
    Lost,
    Mode,
    Opened,
    PollNow,
    ReconnectRequested,
    Started,
    Tick,
    TokenReplaced,
    accepts_reconnect,
    next_wake,
)
from marketplace_sync.tests.support.connection_machine import LIMITS, NO_FALLBACK, Driven, reach


@pytest.mark.parametrize("accept_then_drop", [False, True], ids=["refuse", "accept-then-drop"])
def test_delays_grow_and_stay_at_the_last(accept_then_drop: bool) -> None:
    machine = Driven(NO_FALLBACK)
    machine.send(Started(enabled=True))
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


def test_a_healthy_connection_resets_the_delays() -> None:
    machine = Driven(NO_FALLBACK)
    machine.send(Started(enabled=True))
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


def test_a_stream_is_healthy_at_its_wake_whatever_the_rounding() -> None:
    machine = Driven(now=2.3)
    machine.send(Started(enabled=True))
    machine.open()
    machine.wait()
    assert machine.now - 2.3 < 30.0  # that is why
    assert machine.state.healthy


def test_jitter_adds_up_to_a_tenth_to_the_delay() -> None:
    for draw, wait in ((0.0, 1.0), (0.5, 1.05), (1.0, 1.1)):
        machine = Driven(Limits())
        machine.send(Started(enabled=True))
        machine.send(Failed(1, "refused"), draw=draw)
        assert machine.state.next_attempt_at == pytest.approx(machine.now + wait)


def test_the_third_failure_polls_for_an_hour_and_each_later_one_for_another() -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
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


def test_the_tenth_failure_suspends_the_stream_until_a_reconnect() -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
    for _ in range(9):
        machine.fail()
        machine.wait()
    assert machine.fail() == (PollNow("refused"),)
    state = machine.state
    assert (state.mode, state.reconnect_attempts, state.next_attempt_at) == (Mode.SUSPENDED, 10, None)
    assert state.fallback_to_polling and next_wake(state) is None
    machine.now += 10**6
    assert machine.send(Tick()) == ()
    assert machine.send(ReconnectRequested()) == (Connect(11),)
    assert (machine.state.reconnect_attempts, machine.state.fallback_to_polling) == (0, False)
    machine.fail()
    assert machine.wait() == 1.0


def test_suspension_takes_precedence_over_a_refused_token_and_over_polling() -> None:
    machine = Driven(Limits(reconnect_attempts=2, fallback_after_failures=1))
    machine.send(Started(enabled=True))
    machine.fail(refused_token=True)
    machine.wait()
    machine.fail(refused_token=True)
    assert machine.state.mode is Mode.SUSPENDED


def test_a_refused_token_leaves_one_attempt_per_hour_until_one_is_healthy() -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
    assert machine.fail(refused_token=True) == (PollNow("refused"),)
    assert (machine.state.reason, machine.state.consecutive_failures) == ("refused", 1)
    assert machine.wait() == 3600.0
    machine.fail()  # the second failure alone would wait 2 s
    assert machine.wait() == 3600.0
    machine.open()
    machine.wait()
    machine.lose(after=1.0)
    assert machine.wait() == 1.0


def test_a_token_refused_by_a_healthy_stream_polls_for_an_hour_and_is_no_failure() -> None:
    machine = reach(Mode.OPEN)
    machine.lose(after=100.0, refused_token=True)
    assert (machine.state.mode, machine.state.consecutive_failures) == (Mode.POLLING, 0)


@pytest.mark.parametrize("mode", [Mode.POLLING, Mode.SUSPENDED])
def test_a_new_token_is_tried_without_waiting_if_the_old_one_was_refused(mode: Mode) -> None:
    machine = Driven(LIMITS if mode is Mode.POLLING else Limits(reconnect_attempts=1))
    machine.send(Started(enabled=True))
    machine.fail(refused_token=True)
    assert machine.state.mode is mode
    assert machine.send(TokenReplaced()) == (Connect(2),)
    assert (machine.state.consecutive_failures, machine.state.fallback_to_polling) == (0, False)
    machine.fail(refused_token=mode is Mode.POLLING)
    assert machine.state.mode is mode  # one attempt, not one after the other


@pytest.mark.parametrize("mode", [Mode.WAITING, Mode.POLLING, Mode.SUSPENDED])
def test_a_new_token_changes_nothing_if_the_network_failed(mode: Mode) -> None:
    attempts = {Mode.WAITING: 1, Mode.POLLING: 3, Mode.SUSPENDED: 10}[mode]
    machine = Driven()
    machine.send(Started(enabled=True))
    for number in range(attempts):
        if number:
            machine.wait()
        machine.fail()
    before = machine.state
    assert before.mode is mode
    assert machine.send(TokenReplaced()) == ()
    assert machine.state == before


def test_a_refusal_is_remembered_over_a_failure_of_the_network() -> None:
    machine = reach(Mode.POLLING)
    machine.wait()
    machine.fail()  # the hour's attempt met a dead network
    assert machine.send(TokenReplaced()) == (Connect(3),)


@pytest.mark.parametrize("opened", [False, True], ids=["at the handshake", "by a close"])
def test_the_refusal_of_a_token_that_was_replaced_meanwhile_tries_the_new_one(opened: bool) -> None:
    machine = reach(Mode.OPEN if opened else Mode.CONNECTING)
    assert machine.send(TokenReplaced()) == ()
    assert machine.lose(refused_token=True) == (Connect(2),)
    assert machine.state.consecutive_failures == 0
    assert machine.lose(refused_token=True) == (PollNow("closed"),)  # the new one's


def test_after_a_refusal_any_failure_with_the_old_token_tries_the_new_one() -> None:
    machine = reach(Mode.POLLING)
    machine.wait()
    machine.send(TokenReplaced())
    assert machine.fail() == (Connect(3),)
    machine = Driven()
    machine.send(Started(enabled=True))
    machine.send(TokenReplaced())
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
    assert machine.send(TokenReplaced()) == ()


@pytest.mark.parametrize(
    ("retry_after", "wait"), [(None, 1), (0.5, 1), (-5, 1), (7, 7), (5000, 3600), (float("nan"), 1)]
)
def test_retry_after_lengthens_the_wait_up_to_the_fallback_period(retry_after: float | None, wait: float) -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
    machine.fail(retry_after=retry_after)
    assert machine.wait() == wait


def test_retry_after_on_the_third_failure_polls_for_the_hour() -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
    machine.fail()
    machine.wait()
    machine.fail()
    machine.wait()
    machine.fail(retry_after=99_999.0)
    assert machine.state.mode is Mode.POLLING
    assert machine.wait() == 3600.0


def test_after_a_reconnect_the_end_of_the_old_stream_is_ignored() -> None:
    machine = reach(Mode.OPEN)
    assert machine.send(ReconnectRequested()) == (CloseStream(1), Connect(2))
    asked = machine.state
    assert machine.send(Lost(1, "closed by us")) == ()
    assert machine.state == asked
    machine.open()
    assert machine.state.mode is Mode.OPEN


def test_an_attempt_under_way_serves_a_reconnect_which_resets_counters() -> None:
    machine = Driven()
    machine.send(Started(enabled=True))
    for _ in range(5):
        machine.fail()
        machine.wait()
    assert machine.state.fallback_to_polling
    assert machine.send(ReconnectRequested()) == ()
    state = machine.state
    assert (state.mode, state.consecutive_failures, state.fallback_to_polling) == (Mode.CONNECTING, 0, False)
    machine.fail()
    assert machine.wait() == 1.0


def test_a_stream_that_opens_after_its_attempt_was_given_up_is_closed_by_its_number() -> None:
    machine = reach(Mode.CONNECTING)
    assert machine.send(DisableRequested()) == (CloseStream(1),)
    assert machine.send(EnableRequested()) == (Connect(2),)
    assert machine.send(Opened(1)) == (CloseStream(1),)
    assert machine.state.mode is Mode.CONNECTING


def test_the_first_attempt_has_ended_when_it_opened_failed_or_was_disabled() -> None:
    for event in (Opened(1), Failed(1, "no"), DisableRequested()):
        machine = reach(Mode.CONNECTING)
        assert not machine.state.first_attempt_ended
        machine.send(event)
        assert machine.state.first_attempt_ended
    machine = Driven()
    machine.send(Started(enabled=False))
    assert machine.state.first_attempt_ended


@pytest.mark.parametrize("mode", list(Mode))
def test_a_reconnect_is_accepted_exactly_where_it_leads_to_a_stream(mode: Mode) -> None:
    machine = reach(mode)
    accepted = accepts_reconnect(machine.state)
    machine.send(ReconnectRequested())
    assert accepted == (machine.state.mode is Mode.CONNECTING)


@pytest.mark.parametrize("wrong", [{"reconnect_delays": ()}, {"reconnect_attempts": 0}, {"fallback_after_failures": 0}])
def test_limits_that_cannot_work_raise(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Limits(**wrong)  # type: ignore[arg-type]
