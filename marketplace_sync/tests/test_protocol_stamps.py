"""Stamps: the order of texts is the order of times, to the last digit."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.protocol.stamps import MAX_FRACTION_DIGITS, moment_of, parse_stamp, stamp_of

seconds = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 30)).map(lambda moment: moment.replace(microsecond=0))
# Of few digits often, so that equal times and times a digit apart are common.
digits = st.text("0123456789", max_size=9) | st.sampled_from(["", "0", "5", "50", "500000000", "499999999", "05"])
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@st.composite
def times(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A time as servers write it, and what it is: seconds since the year 1, exactly."""
    base = draw(st.sampled_from([datetime(2026, 1, 15, 23, 59, 59)]) | seconds)
    fraction, minutes = draw(digits), draw(offsets)
    sign = "-" if minutes < 0 else "+"
    offset = (
        draw(st.sampled_from(["Z", "z", ""]))
        if minutes == 0
        else f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    )
    written = base.isoformat() + (f".{fraction}" if fraction else "") + offset
    whole = base - datetime(1, 1, 1) - timedelta(minutes=minutes)
    true = whole.days * 86_400 + whole.seconds + (Fraction(int(fraction), 10 ** len(fraction)) if fraction else 0)
    return written, Fraction(true)


@given(times(), times())
def test_stamps_sort_as_the_times_do(one, other):
    (text_one, true_one), (text_other, true_other) = one, other
    stamp_one, stamp_other = parse_stamp(text_one), parse_stamp(text_other)
    assert (stamp_one < stamp_other) == (true_one < true_other)
    assert (stamp_one == stamp_other) == (true_one == true_other)


@given(times())
def test_the_usual_spelling_is_read_as_any_other(one):
    text = one[0]
    if text.endswith("Z"):
        assert parse_stamp(text) == parse_stamp(text[:-1] + "+00:00") == parse_stamp(text[:-1])


@given(times())
def test_a_stamp_is_its_own_canonical_form(one):
    stamp = parse_stamp(one[0])
    assert parse_stamp(stamp) == stamp


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 30), timezones=st.builds(
    timezone, st.integers(-1439, 1439).map(lambda minutes: timedelta(minutes=minutes)))))  # fmt: skip
def test_a_moment_survives_the_round_trip(moment):
    assert moment_of(stamp_of(moment)) == moment
    assert moment_of(stamp_of(moment)).tzinfo is UTC


def test_a_fraction_finer_than_a_microsecond_is_cut_for_a_moment_and_kept_in_the_stamp():
    stamp = parse_stamp("2026-01-15T10:30:00.123456789Z")
    assert stamp.endswith(".123456789")
    assert moment_of(stamp) == datetime(2026, 1, 15, 10, 30, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-01-15t10:30:00z", "2026-01-15T10:30:00"),
        ("2026-01-15 10:30:00 +0200", "2026-01-15T08:30:00"),
        ("2026-01-15T10:30:00,5", "2026-01-15T10:30:00.5"),
        ("2026-01-15T10:30:00.000Z", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00+00:00", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00.1200+00:00", "2026-01-15T10:30:00.12"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
    ],
)
def test_spellings_of_a_time(text, stamp):
    assert parse_stamp(text) == stamp


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-01-15", "2026-02-30T00:00:00Z", "2026-01-15T24:00:00Z", "2026-01-15T10:30:00+24:00",
        "2026-01-15T10:30:00+02:60", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
        "٢٠٢٦-01-15T10:30:00Z", "2026-01-15T10:30:00Z ", "2026-01-15T10:30:00.Z",
        "2026-01-15T10:30:00." + "1" * (MAX_FRACTION_DIGITS + 1), "1768473000",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"time|offset|month|day|hour|year|range"):
        parse_stamp(text)
