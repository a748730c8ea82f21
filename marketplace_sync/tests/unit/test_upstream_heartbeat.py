"""The heartbeat's rules, on a clock of our own."""

from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.upstream.heartbeat import Due, Pulse


def pulse(interval: float = 30.0, timeout: float = 10.0) -> Pulse:
    return Pulse(interval=interval, timeout=timeout, now=0.0)


def test_a_ping_is_due_every_interval() -> None:
    beat = pulse()
    assert (beat.wake_at, beat.due(29.9), beat.due(30.0)) == (30.0, Due.NOTHING, Due.PING)
    beat.ping(30.0)
    beat.pong()
    assert (beat.wake_at, beat.due(59.9), beat.due(60.0)) == (60.0, Due.NOTHING, Due.PING)


def test_silence_after_a_ping_means_a_dead_peer_at_the_end_of_the_timeout() -> None:
    beat = pulse()
    beat.ping(30.0)
    assert (beat.wake_at, beat.due(39.9), beat.due(40.0)) == (40.0, Due.NOTHING, Due.DEATH)


def test_a_json_pong_alone_is_an_answer() -> None:
    beat = pulse()
    beat.ping(30.0)
    beat.pong()
    assert beat.due(40.0) is Due.NOTHING


def test_a_pong_frame_alone_is_an_answer() -> None:
    beat = pulse()
    beat.pong(beat.ping(30.0))
    assert beat.due(40.0) is Due.NOTHING


def test_a_pong_before_the_ping_is_no_answer() -> None:
    beat = pulse()
    beat.pong()
    beat.ping(30.0)
    assert beat.due(40.0) is Due.DEATH


def test_the_second_pong_of_an_earlier_ping_does_not_answer_the_next() -> None:
    beat = pulse()
    first = beat.ping(30.0)
    beat.pong()  # the JSON one
    beat.ping(60.0)
    beat.pong(first)  # the frame, half a minute late
    assert beat.due(70.0) is Due.DEATH


def test_pong_frames_that_answer_no_ping_of_ours_do_not_count() -> None:
    beat = pulse()
    beat.ping(30.0)
    for payload in (b"", b"12345678", b"\0" * 8, (2).to_bytes(8, "big")):
        beat.pong(payload)
    assert beat.due(40.0) is Due.DEATH


def test_pings_continue_while_an_answer_may_still_come() -> None:
    beat = pulse(interval=1.0, timeout=2.5)
    beat.ping(1.0)
    assert beat.due(2.0) is Due.PING
    second = beat.ping(2.0)
    assert beat.due(3.4) is Due.PING
    beat.pong(second)  # answers the first as well
    assert beat.due(3.6) is Due.PING
    beat.ping(3.6)
    assert (beat.due(6.0), beat.due(6.1)) == (Due.PING, Due.DEATH)


@given(
    interval=st.floats(0.1, 60),
    timeout=st.floats(0.1, 60),
    last_pong=st.floats(0, 500),
    lateness=st.floats(0, 0.05),
)
def test_a_peer_that_falls_silent_is_dead_within_interval_and_timeout(
    interval: float, timeout: float, last_pong: float, lateness: float
) -> None:
    beat, alive_at = pulse(interval, timeout), 0.0
    while True:
        now = beat.wake_at + lateness
        due = beat.due(now)
        if due is Due.DEATH:
            break
        assert due is Due.PING
        beat.ping(now)
        if now <= last_pong:
            beat.pong()
            alive_at = now
    assert timeout < now - alive_at + 1e-6 <= interval + timeout + 2 * lateness + 1e-3
