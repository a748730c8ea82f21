"""The connection machine: at most ten attempts per minute, whatever begins them (rule 11)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_sync.engine.connection_state import (
    ATTEMPT_WINDOW,
    CloseStream,
    Connect,
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
    Tick,
    TokenReplaced,
    next_wake,
    slot_free_in,
)
from marketplace_sync.tests.support.connection_machine import Driven


def with_ten_attempts() -> Driven:
    """Return a machine with an open stream, the tenth within a second."""
    machine = Driven()
    machine.send(Started(enabled=True))
    for _ in range(9):
        machine.open()
        machine.now += 0.1
        machine.send(ReconnectRequested())
    machine.open()
    return machine


def test_an_open_stream_is_not_closed_while_the_limit_allows_no_attempt() -> None:
    machine = with_ten_attempts()
    before = machine.state
    assert machine.send(ReconnectRequested()) == ()
    assert machine.state == before
    assert slot_free_in(machine.state, machine.now) == pytest.approx(ATTEMPT_WINDOW - 0.9)
    machine.now += ATTEMPT_WINDOW - 0.9
    assert machine.send(ReconnectRequested()) == (CloseStream(10), Connect(11))


def test_a_reconnect_over_the_limit_is_tried_as_soon_as_it_is_allowed() -> None:
    machine = with_ten_attempts()
    machine.lose()
    assert machine.send(ReconnectRequested()) == ()
    assert (machine.state.mode, machine.state.reconnect_attempts) == (Mode.WAITING, 0)
    assert "10 connection attempts" in machine.state.reason
    assert machine.wait() == pytest.approx(ATTEMPT_WINDOW - 0.9)
    assert (machine.state.mode, machine.state.attempt) == (Mode.CONNECTING, 11)


def test_retries_that_are_configured_faster_than_the_limit_are_not_counted() -> None:
    machine = Driven(Limits(reconnect_delays=(0.01,), reconnect_jitter=0.0, fallback_after_failures=20,
                            reconnect_attempts=20))  # fmt: skip
    machine.send(Started(enabled=True))
    for _ in range(19):
        machine.fail()
        assert machine.wait() == pytest.approx(0.01)
    machine.fail()
    assert machine.state.mode is Mode.SUSPENDED
    for number in range(21, 30):
        assert machine.send(ReconnectRequested()) == (Connect(number),)
        machine.fail()
    assert machine.send(ReconnectRequested()) == ()


def test_enabling_over_the_limit_waits_until_an_attempt_is_allowed() -> None:
    machine = with_ten_attempts()
    machine.send(DisableRequested())
    assert machine.send(EnableRequested()) == ()
    assert machine.state.mode is Mode.WAITING
    machine.wait()
    assert machine.state.mode is Mode.CONNECTING


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["reconnect", "disable and enable", "new token", "fail", "wait"]),
                          st.floats(0, 10), st.booleans()), max_size=60))  # fmt: skip
def test_no_sequence_of_actions_begins_more_than_ten_attempts_per_minute(deeds: list[tuple[str, float, bool]]) -> None:
    machine = Driven(Limits(reconnect_delays=(1.0,), fallback_after_failures=50, reconnect_attempts=60))
    connects: list[float] = []

    def send(event: Input) -> None:
        connects.extend(machine.now for effect in machine.send(event) if isinstance(effect, Connect))

    send(Started(enabled=True))
    for deed, after, opens in deeds:
        machine.now += after
        match deed:
            case "reconnect":
                send(ReconnectRequested())
            case "disable and enable":
                send(DisableRequested())
                send(EnableRequested())
            case "new token":
                send(Failed(machine.state.attempt, "refused", refused_token=True))
                send(TokenReplaced())
            case "fail":
                send(Lost(machine.state.attempt, "dropped"))
            case _:
                machine.now = max(machine.now, next_wake(machine.state) or 0.0)
                send(Tick())
        if opens and machine.state.mode is Mode.CONNECTING:
            send(Opened(machine.state.attempt))
    assert all(sum(start <= at < start + 60 for at in connects) <= 10 for start in connects)


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
def test_no_server_causes_more_than_ten_attempts_per_minute(
    deeds: list[tuple[str, float, float, float | None]],
) -> None:
    machine = Driven(Limits(fallback_after_failures=50))  # the defaults poll for an hour long before
    connects: list[float] = []
    machine.send(Started(enabled=True))
    for deed, after, draw, retry_after in deeds:
        connects.append(machine.now)
        if deed == "refuse":
            machine.send(Failed(machine.state.attempt, "refused", retry_after=retry_after), draw)
        else:
            machine.open()
            machine.now += after if deed == "stand" else 0.0
            machine.send(Lost(machine.state.attempt, "dropped"), draw)
        if machine.state.mode is Mode.SUSPENDED:
            break
        machine.wait()
    assert all(sum(start <= at < start + 60 for at in connects) <= 10 for start in connects)
