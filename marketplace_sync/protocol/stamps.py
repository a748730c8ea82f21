"""Server times at full precision.

The newest record wins, and two records may differ by less than a microsecond, the precision of `datetime`. A `Stamp`
is therefore text in one canonical form, in UTC: `2026-01-15T10:30:00`, with a fraction only where there is one, and
without trailing zeros (`2026-01-15T10:30:00.123456789`). A prefix sorts first, so comparing the texts compares the
times.

Servers write a time in several forms, and some change the form with the value: Java leaves out seconds that are 0, Go
repeats an offset that has no name, PostgreSQL writes a year of five digits, JavaScript prints `Invalid Date`.
`parse_stamp` reads every form that has one meaning. It does not read numbers: whether 1768473000 counts seconds or
something else is a guess, and a wrong guess would make the record the newest for good.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NewType

Stamp = NewType("Stamp", str)

# No clock has a longer fraction. The column that stores stamps is 64 wide.
MAX_FRACTION_DIGITS = 32

# The lengths of whole seconds and of microseconds: nothing to cut and nothing to fill up.
_MICROSECOND_LENGTHS = (19, 26)

# The form that nearly every server writes. It needs no conversion, which halves the time.
_USUAL = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{{1,{MAX_FRACTION_DIGITS}}})?(?:Z|\+00:00)", re.ASCII)
_FRACTION = rf"(?:[.,](?P<fraction>\d{{0,{MAX_FRACTION_DIGITS}}}))?"
_HALF = r"(?:\s?(?P<half>[ap])\.?m\.?)?"
# An offset may be followed by a Z (where it is zero) and by its name: Go writes "+0000 UTC" or "-0300 -03",
# Java "+01:00[Europe/Paris]", Elixir "+01:00 CET Europe/Paris", JavaScript "GMT+0100 (Central European Standard Time)".
# Go adds the value of its monotonic clock. A name alone is no offset.
_NAMES = (
    r"(?:(?<=[+-]00:00)Z)?(?:\s(?:[A-Z]{3,5}|[+-]\d\d(?:\d\d)?))?"
    r"(?:\[[\w/+:-]{1,64}\]|\s[A-Z][\w+-]{0,31}(?:/[\w+-]{1,32}){1,2}|\s\([^()]{1,64}\))?(?:\sm=[+-]\d{1,12}\.\d{1,9})?"
)
_OFFSET = r"(?:\s?(?P<offset>(?:UTC|GMT)?[+-](?:\d{1,2}(?::\d\d(?::\d\d)?)?|\d{4}(?:\d\d)?)|Z|UTC|GMT)" + _NAMES + ")?"
_CLOCK = rf"(?P<hour>\d{{1,2}}):(?P<minute>\d{{1,2}})(?::(?P<second>\d{{1,2}}){_FRACTION})?{_HALF}{_OFFSET}"
_BASIC_CLOCK = rf"(?P<hour>\d\d)(?P<minute>\d\d)(?:(?P<second>\d\d){_FRACTION})?{_OFFSET}"
_WEEKDAY = r"(?:[a-z]{3,9},?\s)?"
_SHAPES = tuple(
    re.compile(shape, re.ASCII | re.IGNORECASE)
    for shape in (
        rf"(?P<year>\d{{4}})([-/.])(?P<month>\d{{1,2}})\2(?P<day>\d{{1,2}})(?:(?:T|,?\s){_CLOCK})?",
        rf"(?P<year>\d{{4}})(-?)(?P<month>\d\d)\2(?P<day>\d\d)(?:T{_BASIC_CLOCK})?",
        rf"(?P<week>\d{{4}}-W\d\d-[1-7])(?:T{_CLOCK})?",
        rf"(?P<year>\d{{4}})-(?P<ordinal>\d{{3}})(?:T{_CLOCK})?",
        # HTTP and mail; some frameworks write JSON times so.
        rf"{_WEEKDAY}(?P<day>\d{{1,2}})[\s-](?P<word>[a-z]{{3,9}})[\s-](?P<year>\d{{4}}),?\s{_CLOCK}",
        # JavaScript's and English.
        rf"{_WEEKDAY}(?P<word>[a-z]{{3,9}})\s(?P<day>\d{{1,2}}),?\s(?P<year>\d{{4}})(?:,|\sat)?\s{_CLOCK}",
        # C's, and the one of `date`, Java and Ruby, with an offset before the year.
        rf"{_WEEKDAY}(?P<word>[a-z]{{3}})\s(?P<day>\d{{1,2}})\s{_CLOCK}\s(?P<year>\d{{4}})",
    )
)
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
# What stands for "never": MySQL's zero date, the first moment of Go and .NET, years that no column takes, and what
# languages print for a missing time.
_ZERO = "0001-01-01T00:00:00"
_NEVER = re.compile(
    r"|-|0000-\d\d-\d\d.*|[+-]\d{4,}-\d\d-\d\dT.*|\d{5,}-\d\d-\d\d.*|\d{4,}-\d\d-\d\d.* BC|[+-]?infinity"
    r"|null|none|<?nil>?|undefined|nat|nan|n/a|never|invalid date",
    re.ASCII | re.IGNORECASE,
)


class NoTimeError(ValueError):
    """Raised for a text that means "no time", or for a time outside the years 1 to 9999 in UTC."""


def parse_stamp(text: str) -> Stamp:
    """Return the stamp of a time as standards and programming languages write it; without an offset it is UTC.

    Seconds may be left out, and so may the clock: a date is its midnight. 24:00 is the next midnight, and second 60
    the next minute, as Unix time counts it. Raises `NoTimeError` for an empty text and for a zero date; `ValueError`
    for anything else, and for a day, hour or offset that does not exist.
    """
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        seconds, fraction = usual.groups()
        # 24:00, second 60 and a zero date are left to the shapes below: newer Python versions read the first one here.
        if seconds[11:13] != "24" and seconds != _ZERO and _exists(seconds):
            return Stamp(seconds if fraction is None else (seconds + fraction).rstrip("0").rstrip("."))
    # A space may be doubled (C's days before the 10th) or a narrow one (before AM), and a minus the typographic one.
    text = " ".join(text.split()).replace("\u2212", "-")
    if _NEVER.fullmatch(text):
        raise NoTimeError(f"no time: {text[:64]!r}")
    for shape in _SHAPES:
        if found := shape.fullmatch(text):
            return _stamp(found.groupdict())
    raise ValueError(f"not an ISO 8601 time: {text[:64]!r}")


def to_microseconds(stamp: Stamp) -> str:
    """Return `stamp` cut at the microsecond, as `datetime.isoformat` writes it, without an offset."""
    if len(stamp) in _MICROSECOND_LENGTHS:
        return stamp
    seconds, _, digits = stamp.partition(".")
    micros = digits[:6].ljust(6, "0")
    return seconds if micros == "000000" else f"{seconds}.{micros}"


def stamp_of(moment: datetime) -> Stamp:
    """Return the stamp of an aware `datetime`."""
    return parse_stamp(moment.astimezone(UTC).isoformat())


def moment_of(stamp: Stamp) -> datetime:
    """Return the aware UTC `datetime` of a stamp, cut at the microsecond."""
    seconds, _, digits = stamp.partition(".")
    micros = int(digits[:6].ljust(6, "0")) if digits else 0
    return datetime.fromisoformat(seconds).replace(microsecond=micros, tzinfo=UTC)


def _exists(seconds: str) -> bool:
    try:
        datetime.fromisoformat(seconds)
    except ValueError:
        return False
    return True


def _stamp(found: dict[str, str | None]) -> Stamp:
    hour, minute, second = (int(found[part] or 0) for part in ("hour", "minute", "second"))
    digits = (found["fraction"] or "").rstrip("0")
    day = _day(found)
    if half := found.get("half"):
        if not 1 <= hour <= 12:
            raise ValueError(f"no such hour: {hour} {half}m")
        hour = hour % 12 + (12 if half in "pP" else 0)
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and (minute or second or digits)):
        raise ValueError(f"no such hour: {hour:02}:{minute:02}:{second:02}")
    try:
        moment = datetime(day.year, day.month, day.day) + timedelta(hours=hour, minutes=minute, seconds=second)
        moment -= _offset(found["offset"])
    except OverflowError:
        raise NoTimeError("outside the years 1 to 9999 in UTC") from None
    seconds = moment.isoformat()
    if seconds == _ZERO and not digits:
        raise NoTimeError("a zero date")
    return Stamp(f"{seconds}.{digits}" if digits else seconds)


def _day(found: dict[str, str | None]) -> date:
    if week := found.get("week"):
        return date.fromisocalendar(int(week[:4]), int(week[6:8]), int(week[-1]))
    if ordinal := found.get("ordinal"):
        first = date(int(found["year"] or 0), 1, 1)
        day = first + timedelta(days=int(ordinal) - 1)
        if day.year != first.year:
            raise ValueError(f"no such day of the year {first.year}: {ordinal}")
        return day
    month = int(found.get("month") or 0)
    if word := found.get("word"):
        named = (number for number, name in enumerate(_MONTHS, 1) if word.lower() in (name, name[:3]))
        month = next(named, 0)
    return date(int(found["year"] or 0), month, int(found["day"] or 0))


def _offset(text: str | None) -> timedelta:
    """Return the time to subtract to get UTC."""
    signed = "" if text is None else text.upper().removeprefix("UTC").removeprefix("GMT").removeprefix("Z")
    if not signed:
        return timedelta(0)
    parts = signed[1:].split(":") if ":" in signed else [signed[1:3], signed[3:5], signed[5:]]
    hours, minutes, seconds = (int(part or 0) for part in (*parts, "")[:3])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f"no such offset: {text}")
    shift = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return shift if signed[0] == "+" else -shift
