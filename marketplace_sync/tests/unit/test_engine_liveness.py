"""Liveness is judged by a heartbeat that changes, whatever the database's clock does (laws 9 and 10)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.engine.liveness import Heartbeat, Life, Watch, believable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMIT, PATIENCE, PERIOD = 15.0, 10.0, 2.0


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class Observed:
    """A writer, the database's clock and an observer, without any real time."""

    def __init__(self) -> None:
        self.watch = Watch(limit=LIMIT, patience=PATIENCE)
        self.monotonic = 1000.0
        self.database = NOON
        self.heartbeat = Heartbeat(1, NOON)

    def beat(self) -> None:
        self.heartbeat = Heartbeat(1, self.database)

    def passes(self, count: float) -> None:
        self.monotonic += count
        self.database += seconds(count)

    def look(self) -> Life:
        return self.watch.look(self.heartbeat, database_now=self.database, now=self.monotonic)


@pytest.mark.parametrize("ahead", [2.001, 5, 20, 3600, 3 * 86_400, 400 * 86_400])
def test_a_heartbeat_ahead_of_the_clock_is_never_a_sign_of_life(ahead: float) -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, NOON + seconds(ahead))
    judgements = set()
    for _ in range(int(min(ahead, 3600)) + 60):
        judgements.add(seen.look())
        seen.passes(1.0)
    assert judgements == {Life.UNCERTAIN, Life.DEAD}


@pytest.mark.parametrize("at", [None, NOON + seconds(5), NOON + seconds(3600)])
def test_a_heartbeat_without_a_believable_time_is_dead_once_it_was_watched_for_long_enough(at: datetime | None) -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, at)
    assert seen.look() is Life.UNCERTAIN
    seen.passes(PATIENCE - 0.1)
    assert seen.look() is Life.UNCERTAIN
    seen.passes(0.1)
    assert seen.look() is Life.DEAD


@pytest.mark.parametrize("age", [-2.0, -0.5, 0.0, 14.9])
def test_a_recent_heartbeat_is_a_sign_of_life_until_it_would_be_too_old(age: float) -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, NOON - seconds(age))
    assert seen.look() is Life.ALIVE
    seen.passes(LIMIT - max(age, 0.0) - 0.01)
    assert seen.look() is Life.ALIVE
    seen.passes(0.02)
    assert seen.look() is Life.DEAD


def test_a_heartbeat_that_is_too_old_at_first_sight_is_dead() -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, NOON - seconds(LIMIT))
    assert seen.look() is Life.DEAD


def test_a_clock_that_stands_still_keeps_nobody_alive() -> None:
    seen = Observed()
    assert seen.look() is Life.ALIVE
    seen.monotonic += LIMIT
    assert seen.look() is Life.DEAD


def test_a_clock_that_jumps_forward_kills_nobody_who_was_seen_alive() -> None:
    seen = Observed()
    assert seen.look() is Life.ALIVE
    seen.database += seconds(3600)
    seen.passes(1.0)
    assert seen.look() is Life.ALIVE
    seen.beat()
    assert seen.look() is Life.ALIVE


def test_another_epoch_with_the_same_time_is_another_heartbeat() -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, NOON + seconds(60))
    seen.look()
    seen.passes(PATIENCE)
    assert seen.look() is Life.DEAD
    seen.heartbeat = Heartbeat(2, NOON + seconds(60))
    assert seen.look() is Life.UNCERTAIN


# How far the clock is put back, or a little forward, before each second of the observer's.
steps = st.lists(st.one_of(st.just(0.0), st.floats(-400_000, -0.5), st.floats(0, 5)), min_size=1, max_size=120)


@given(steps)
def test_a_writer_that_renews_is_never_dead_however_the_clock_is_put_back(jumps: list[float]) -> None:
    seen = Observed()
    for number, jump in enumerate(jumps):
        seen.database += seconds(jump)
        if number % int(PERIOD) == 0:
            seen.beat()
        assert seen.look() is not Life.DEAD
        if jumps[max(number - 1, 0) : number + 1] == [0.0, 0.0] or number % int(PERIOD) == 0:
            # Within one period of the jump it is seen to live again.
            assert seen.look() is Life.ALIVE
        seen.passes(1.0)


@given(st.floats(-400_000, 400_000), steps)
def test_a_writer_that_is_gone_is_dead_in_time_whatever_the_clock_does(ahead: float, jumps: list[float]) -> None:
    seen = Observed()
    seen.heartbeat = Heartbeat(1, NOON + seconds(ahead))
    begun = seen.monotonic
    for jump in [*jumps, *[0.0] * 20]:
        life = seen.look()
        if seen.monotonic - begun >= LIMIT:
            assert life is Life.DEAD
        seen.database += seconds(jump)
        seen.passes(1.0)


@pytest.mark.parametrize(("ahead", "believed"), [(-60, -60), (0, 0), (1.9, 0), (2.1, None), (3600, None)])
def test_a_time_ahead_of_the_clock_is_not_believed(ahead: float, believed: float | None) -> None:
    assert believable(NOON + seconds(ahead), NOON) == (None if believed is None else NOON + seconds(believed))
    assert believable(None, NOON) is None
