"""The message rate and the request budget, also as the server counts them."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_sync.engine.rates import RequestBudget, TokenBucket


def test_a_full_bucket_accepts_one_second_of_messages_and_then_the_rate() -> None:
    bucket = TokenBucket(100)
    assert sum(bucket.take(5.0) for _ in range(300)) == 100
    assert sum(bucket.take(5.5) for _ in range(300)) == 50
    assert sum(bucket.take(1000.0) for _ in range(300)) == 100


def test_rate_zero_is_no_limit() -> None:
    bucket = TokenBucket(0)
    assert all(bucket.take(0.0) for _ in range(1000))


def test_a_rate_below_one_accepts_some_messages() -> None:
    bucket = TokenBucket(0.5)
    assert [bucket.take(now) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [True, False, True, False, True]


def test_a_clock_that_stands_still_or_goes_back_adds_no_tokens() -> None:
    bucket = TokenBucket(1)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(5.9)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 40), max_size=200))
def test_no_period_gets_more_than_the_burst_and_its_rate(rate: int, burst: int, pauses: list[int]) -> None:
    bucket, now = TokenBucket(rate, burst), 0.0
    taken = []
    for pause in pauses:
        now += pause / 64
        if bucket.take(now):
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-6


def test_the_budget_may_burst_and_then_returns_the_wait() -> None:
    budget = RequestBudget(3)
    assert [budget.reserve(0) for _ in range(3)] == [0, 0, 0]
    assert budget.left(0) == 0
    assert budget.reserve(10) == 60  # all under way: the first answer can't come before now
    budget.finish(12)
    budget.finish(20)
    assert budget.reserve(30) == 42
    assert budget.reserve(71.5) == 0.5
    assert budget.reserve(72) == 0
    assert budget.reserve(72) == 8
    assert budget.left(80) == 1  # one under way since 0, one since 72


def test_a_request_under_way_occupies_its_slot_however_long_it_takes() -> None:
    budget = RequestBudget(1)
    budget.reserve(0)
    assert budget.reserve(10_000) == 60
    budget.finish(10_000)
    assert budget.reserve(10_059) == 1


def test_single_fetches_get_their_share_and_no_more() -> None:
    budget = RequestBudget(100, single_fetch_share=20)
    assert [budget.reserve(0, single=True) for _ in range(21)] == [0] * 20 + [60]
    assert [budget.reserve(0) for _ in range(81)] == [0] * 80 + [60]
    budget.finish(1)
    assert budget.reserve(61, single=True) == 60  # a free slot, but no free single
    budget.finish(61, single=True)
    assert budget.reserve(61) == 0
    assert budget.reserve(121, single=True) == 0


def test_single_fetches_count_against_the_whole() -> None:
    budget = RequestBudget(2)
    budget.reserve(0, single=True)
    budget.reserve(0)
    assert budget.reserve(0, single=True) == 60


def test_nothing_is_sent_before_a_pause_is_over() -> None:
    for per_minute in (0, 100):
        budget = RequestBudget(per_minute)
        budget.pause_until(50)
        budget.pause_until(30)
        assert budget.reserve(40) == 10
        assert budget.left(40) == 0
        assert budget.reserve(50) == 0
        assert budget.left(50) == (99 if per_minute else None)


def test_the_longer_of_a_pause_and_a_full_budget_decides() -> None:
    budget = RequestBudget(1)
    budget.reserve(0)
    budget.finish(0)
    budget.pause_until(20)
    assert budget.reserve(10) == 50
    budget.pause_until(100)
    assert budget.reserve(10) == 90


def test_budget_zero_has_no_limit() -> None:
    budget = RequestBudget(0)
    assert all(budget.reserve(0, single=True) == 0 for _ in range(1000))
    budget.finish(0, single=True)
    assert budget.left(0) is None


@pytest.mark.parametrize("single", [False, True])
def test_a_finish_without_a_reserve_of_its_kind_is_refused(single: bool) -> None:
    budget = RequestBudget(10)
    budget.reserve(0, single=not single)
    with pytest.raises(RuntimeError):
        budget.finish(1, single=single)


# Times in 64ths of a second, so that sums of floats are exact.
REQUESTS = st.lists(
    st.tuples(st.integers(0, 64 * 3), st.integers(0, 64 * 40), st.integers(0, 4), st.booleans()),
    min_size=5,
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(REQUESTS, st.integers(1, 8), st.integers(1, 4))
def test_no_minute_of_the_server_sees_more_than_the_budget(
    requests: list[tuple[int, int, int, bool]], limit: int, share: int
) -> None:
    budget = RequestBudget(limit, single_fetch_share=share)
    now = 0.0
    answers: list[tuple[float, bool]] = []
    arrivals: list[tuple[float, bool]] = []

    def finish_until(moment: float) -> None:
        while answers and answers[0][0] <= moment:
            answered_at, single = heapq.heappop(answers)
            budget.finish(answered_at, single=single)

    for pause, lasts, quarter, single in requests:
        now += pause / 64
        finish_until(now)
        while wait := budget.reserve(now, single=single):
            # "May be free" is the earliest; no answer before then can bring it forward.
            now += wait
            finish_until(now)
        heapq.heappush(answers, (now + lasts / 64, single))
        arrivals.append((now + lasts / 64 * quarter / 4, single))
        assert len(budget._all._answered) <= limit
    for start, _ in arrivals:
        window = [single for at, single in arrivals if start <= at < start + 60]
        assert len(window) <= limit
        assert sum(window) <= share


@settings(max_examples=100, deadline=None)
@given(REQUESTS)
def test_the_returned_wait_is_never_too_long(requests: list[tuple[int, int, int, bool]]) -> None:
    """With nothing under way the wait is exact: a slot is free then, and not a moment before."""
    budget, now = RequestBudget(5), 0.0
    for pause, _, _, _ in requests:
        now += pause / 64
        if wait := budget.reserve(now):
            assert budget.reserve(now + wait - 1 / 64) > 0
            now += wait
            assert budget.reserve(now) == 0
        budget.finish(now)
