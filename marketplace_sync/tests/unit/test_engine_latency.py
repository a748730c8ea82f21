"""The histogram of delays: bounded, with an error of at most 5 %, and two of them can be added."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.engine.latency import LAST_BUCKET, MOST_SECONDS, bucket_of, quantile, seconds_of

SECONDS = st.floats(min_value=-10, max_value=2 * MOST_SECONDS, allow_nan=False)


@given(SECONDS)
def test_the_error_of_a_bucket_is_at_most_five_per_cent(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert 0 <= bucket <= LAST_BUCKET
    if 0.001 < seconds <= MOST_SECONDS:
        assert abs(seconds_of(bucket) / seconds - 1) < 0.0501
    elif seconds <= 0.001:
        assert seconds_of(bucket) == 0.001


@given(st.lists(st.floats(min_value=0.002, max_value=MOST_SECONDS), min_size=1), st.floats(min_value=0, max_value=1))
def test_a_quantile_is_that_of_the_sorted_values(values: list[float], share: float) -> None:
    found = quantile(Counter(map(bucket_of, values)), share)
    assert found is not None
    ordered = sorted(values)
    # At a share that falls on the edge between two values either is right.
    near = [ordered[max(0, min(len(values) - 1, int(share * len(values)) + step))] for step in (-1, 0, 1)]
    assert any(abs(found / value - 1) < 0.0501 for value in near)


@given(st.lists(SECONDS), st.lists(SECONDS), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_adding_two_histograms_counts_both(one: list[float], other: list[float], share: float) -> None:
    both = Counter(map(bucket_of, one)) + Counter(map(bucket_of, other))
    assert quantile(both, share) == quantile(Counter(map(bucket_of, one + other)), share)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert quantile({3: 0}, 0.5) is None
