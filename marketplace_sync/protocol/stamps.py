"""Server times at full precision.

The newest record wins, and two records may differ by less than a microsecond, which is all that
`datetime` holds. A `Stamp` is therefore text in one canonical form, UTC, that sorts as time does:
`2026-01-15T10:30:00` with a fraction only where there is one, without trailing zeros
(`2026-01-15T10:30:00.123456789`). A prefix sorts first, so plain string comparison is the order.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NewType

Stamp = NewType("Stamp", str)

# A fraction longer than this is no clock's reading; the column that keeps stamps is 64 wide.
MAX_FRACTION_DIGITS = 32

# The lengths of whole seconds and of six digits: nothing to cut and nothing to fill up.
_AS_IT_IS = (19, 26)

_SHAPE = re.compile(
    rf"(\d{{4}}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:[.,](\d{{1,{MAX_FRACTION_DIGITS}}}))?\s?([Zz]|[+-]\d\d:?\d\d|)",
    re.ASCII,
)
# The canonical form but for its end, as nearly every server writes it: nothing to convert, half the time.
_USUAL = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{{1,{MAX_FRACTION_DIGITS}}})?(?:Z|\+00:00)", re.ASCII)


def parse_stamp(text: str) -> Stamp:
    """The stamp of an ISO 8601 / RFC 3339 time; one without an offset is read as UTC.

    Raises `ValueError` for anything else, and for a day or hour that does not exist.
    """
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        seconds, fraction = usual.groups()
        datetime.fromisoformat(seconds)  # raises where there is no such day or hour
        return Stamp(seconds if fraction is None else (seconds + fraction).rstrip("0").rstrip("."))
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError(f"not an ISO 8601 time: {text[:64]!r}")
    day, clock, fraction, offset = found.groups()
    seconds = f"{day}T{clock}"
    whole = datetime.fromisoformat(seconds)
    if offset not in ("", "Z", "z"):
        hours, minutes = int(offset[1:3]), int(offset[-2:])
        if hours > 23 or minutes > 59:
            raise ValueError(f"no such offset: {offset}")
        shift = timedelta(hours=hours, minutes=minutes)
        try:
            whole = whole - shift if offset[0] == "+" else whole + shift
        except OverflowError:
            raise ValueError(f"outside the years 1 to 9999 in UTC: {text}") from None
        seconds = whole.isoformat()
    digits = (fraction or "").rstrip("0")
    return Stamp(f"{seconds}.{digits}" if digits else seconds)


def to_microseconds(stamp: Stamp) -> str:
    """`stamp` cut at the microsecond, as `datetime.isoformat` writes it, without an offset."""
    if len(stamp) in _AS_IT_IS:
        return stamp
    seconds, _, digits = stamp.partition(".")
    micros = digits[:6].ljust(6, "0")
    return seconds if micros == "000000" else f"{seconds}.{micros}"


def stamp_of(moment: datetime) -> Stamp:
    """The stamp of an aware `datetime`."""
    return parse_stamp(moment.astimezone(UTC).isoformat())


def moment_of(stamp: Stamp) -> datetime:
    """The aware UTC `datetime` of a stamp, cut at the microsecond."""
    seconds, _, digits = stamp.partition(".")
    micros = int(digits[:6].ljust(6, "0")) if digits else 0
    return datetime.fromisoformat(seconds).replace(microsecond=micros, tzinfo=UTC)
