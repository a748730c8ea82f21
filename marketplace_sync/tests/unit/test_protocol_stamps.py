"""Stamps: the order of texts is the order of times, to the last digit."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.protocol import fields
from marketplace_sync.protocol.stamps import MAX_FRACTION_DIGITS, NoTimeError, moment_of, parse_stamp, stamp_of

seconds = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 30)).map(lambda moment: moment.replace(microsecond=0))
# Of few digits often, so that equal times and times a digit apart are common.
digits = st.text("0123456789", max_size=9) | st.sampled_from(["", "0", "5", "50", "500000000", "499999999", "05"])
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@st.composite
def times(draw: st.DrawFn) -> tuple[str, Fraction]:
    """Draw a time as servers write it, and its exact value in seconds since the year 1."""
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
def test_usual_spelling_is_read_like_any_other(one):
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
        ("0001-01-01T00:00:00.1Z", "0001-01-01T00:00:00.1"),
        # Java leaves out seconds that are 0, PostgreSQL the minutes of an offset.
        ("2026-01-15T10:30Z", "2026-01-15T10:30:00"),
        ("2026-01-15 10:30+00", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00-03", "2026-01-15T13:30:00"),
        ("2026-01-15T10:30+05:30", "2026-01-15T05:00:00"),
        ("1890-01-01T00:00:00+00:53:28", "1889-12-31T23:06:32"),
        # A fraction whose zeros were trimmed and whose point was not.
        ("2026-01-15T10:30:00.Z", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00Z ", "2026-01-15T10:30:00"),
        ("2026-01-15", "2026-01-15T00:00:00"),
        ("2026-01-15Z", None),
        ("20260115T103000Z", "2026-01-15T10:30:00"),
        ("20260115T103000.5+0100", "2026-01-15T09:30:00.5"),
        ("20260115", "2026-01-15T00:00:00"),
        ("2026-W03-4T10:30:00Z", "2026-01-15T10:30:00"),
        ("2026/01/15 10:30:00", "2026-01-15T10:30:00"),
        ("2026-1-5 9:05:00", "2026-01-05T09:05:00"),
        # A leap second and a midnight at the day's end: the next minute, the next day.
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
        ("2017-01-01T05:29:60.25+05:30", "2017-01-01T00:00:00.25"),
        ("2026-01-15T24:00:00Z", "2026-01-16T00:00:00"),
        ("2026-02-28 24:00", "2026-03-01T00:00:00"),
        # Go, Java, HTTP and mail.
        ("2026-01-15 10:30:00.123456789 +0000 UTC", "2026-01-15T10:30:00.123456789"),
        ("2026-01-15 11:30:00 +0100 CET", "2026-01-15T10:30:00"),
        ("2026-01-15T11:30:00+01:00[Europe/Paris]", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30Z[UTC]", "2026-01-15T10:30:00"),
        ("2026-01-15 10:30:00 UTC", "2026-01-15T10:30:00"),
        ("Thu, 15 Jan 2026 10:30:00 GMT", "2026-01-15T10:30:00"),
        ("15 Jan 2026 10:30 -0500", "2026-01-15T15:30:00"),
        # Go, where the place has no name for its time, and with what its monotonic clock reads.
        ("2026-01-15 07:30:00 -0300 -03", "2026-01-15T10:30:00"),
        ("2026-01-15 16:00:00.5 +0530 +0530", "2026-01-15T10:30:00.5"),
        ("2026-01-15 10:30:00.1 +0000 UTC m=+0.000012345", "2026-01-15T10:30:00.1"),
        # Java writes "GMT" where the offset is zero, and "GMT+1" in summer.
        ("2026-01-15 11:30:00 GMT+1", "2026-01-15T10:30:00"),
        ("2026-01-15T16:00:00 UTC+05:30", "2026-01-15T10:30:00"),
        ("2026-01-15T11:30:00+1:00", "2026-01-15T10:30:00"),
        # Elixir, and Python with a Z too many.
        ("2026-01-15 11:30:00+01:00 CET Europe/Paris", "2026-01-15T10:30:00"),
        ("2026-01-15T10:30:00.25+00:00Z", "2026-01-15T10:30:00.25"),
        # Put together without zeros in front.
        ("2026-1-5 9:5:3", "2026-01-05T09:05:03"),
        # C, `date`, Ruby and JavaScript; a day before the 10th stands behind two spaces.
        ("Thu Jan 15 10:30:00 2026", "2026-01-15T10:30:00"),
        ("Mon Jan  5 10:30:00 2026", "2026-01-05T10:30:00"),
        ("Thu Jan 15 10:30:00 UTC 2026", "2026-01-15T10:30:00"),
        ("Thu Jan 15 11:30:00 +0100 2026", "2026-01-15T10:30:00"),
        ("Thu Jan 15 2026 11:30:00 GMT+0100 (Central European Standard Time)", "2026-01-15T10:30:00"),
        # English, with the narrow space that ICU writes before the half of the day.
        ("Jan 15, 2026, 10:30:00\u202fAM", "2026-01-15T10:30:00"),
        ("January 15, 2026 at 12:30 pm", "2026-01-15T12:30:00"),
        ("2026-01-15 12:05:00 AM", "2026-01-15T00:05:00"),
        ("15 January 2026, 10:30", "2026-01-15T10:30:00"),
        ("2026.01.15 10:30:00", "2026-01-15T10:30:00"),
        ("2026-01-15, 10:30:00", "2026-01-15T10:30:00"),
        ("2026-01-15T103000Z", "2026-01-15T10:30:00"),
        ("2026-015T10:30:00Z", "2026-01-15T10:30:00"),
        ("2024-366", "2024-12-31T00:00:00"),
        ("2026-01-15T05:30:00\u221205:00", "2026-01-15T10:30:00"),
    ],
)
def test_spellings_of_a_time(text, stamp):
    if stamp is None:
        with pytest.raises(ValueError, match="not an ISO 8601 time"):
            parse_stamp(text)
    else:
        assert parse_stamp(text) == stamp


@given(times(), st.integers(0, 999_999_999))
def test_forms_that_vary_with_the_value_are_one_time(one, nanoseconds):
    seconds = parse_stamp(one[0]).partition(".")[0]
    forms = {parse_stamp(f"{seconds}{fraction}{zone}") for fraction in ("", ".", ".0", ",000")
             for zone in ("", "Z", "z", "+00", "+0000", " -00:00", " UTC", "Z[UTC]")}  # fmt: skip
    if seconds.endswith(":00"):
        forms |= {parse_stamp(seconds[:-3] + zone) for zone in ("", "Z", "+00", "+00:00")}
    assert forms == {seconds}
    digits = f"{nanoseconds:09}"
    assert parse_stamp(f"{seconds}.{digits}Z") == parse_stamp(f"{seconds}.{digits.rstrip('0')}+00")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "0000-00-00 00:00:00", "0000-00-00T00:00:00Z", "0000-00-00", "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00.0000000", "0001-01-01", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
        "+10000-01-01T00:00:00Z", "-0001-12-31T00:00:00Z", "+1000000000-12-31T23:59:59.999999999Z", "infinity",
        "-infinity", "null", "None", "9999-12-31T24:00:00Z",
        # PostgreSQL's years before the first and after 9999, and what languages print for a time that is none.
        "10000-01-01T00:00:00+00:00", "12026-01-15 10:30:00.5+00", "0044-03-15 10:30:00+00 BC", "0044-03-15 BC",
        "Invalid date", "Invalid Date", "undefined", "nil", "<nil>", "N/A", "never", "-", "NaN", "NaT",
    ],
)  # fmt: skip
def test_text_for_no_time_is_none(text):
    with pytest.raises(NoTimeError):
        parse_stamp(text)
    assert fields.time(text, "updated_at") is None


@pytest.mark.parametrize(
    "text",
    [
        "now", "2026-02-30T00:00:00Z", "2026-02-30", "2026-00-00", "2026-01-15T24:00:01Z", "2026-01-15T24:00:00.1Z",
        "2026-01-15T25:00Z", "2026-01-15T10:30:00+24:00", "2026-01-15T10:60Z", "2026-01-15T10:30:61Z",
        "2026-01-15T10:30:00+02:60", "2026-01-15T10:30:00+02:00:60", "٢٠٢٦-01-15T10:30:00Z", "2026-01/15",
        "2026-01-15T10:30:00." + "1" * (MAX_FRACTION_DIGITS + 1), "1768473000", "1768473000000", "20260115103000",
        "2026-01-15T10:30:00[Europe/Paris]", "2026-01-15T10:30:00 EST", "15/01/2026", "01/15/2026 10:30", "2026",
        "10:30:00", "2026-W60-1", "Thu, 32 Jan 2026 10:30:00 GMT", "15 Foo 2026 10:30:00 GMT", "2026-01-15T10Z",
        "2026-01-15T10:30:00+02:00Z", "2026-01-15 10:30:00 CET", "2026-01-15 10:30:00 Europe/Paris",
        "Thu Jan 15 10:30:00 CET 2026", "2026-01-15 13:30:00 PM", "2026-01-15 00:30:00 AM", "2026-366T00:00:00Z",
        "2026-000", "2026-01-15T10:30:00+05300", "Foo 15, 2026, 10:30:00 AM", "01.02.2026 10:30:00", "2026-0115",
    ],
)  # fmt: skip
def test_text_that_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"time|offset|month|day|hour|year|range|[Ww]eek") as caught:
        parse_stamp(text)
    assert not isinstance(caught.value, NoTimeError)
