"""Times in an HTTP answer: the server's clock (`Date`) and how long to wait (`Retry-After`)."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

# Nine digits are 31 years; more is not a wait but an attack on our integer parser.
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
# A `Date` has whole seconds, and took a moment to arrive: clocks that differ by less count as equal.
_CLOCKS_AGREE = timedelta(seconds=2)
# It is cut to the second: on average half a second had passed.
_CUT = timedelta(seconds=0.5)


def utc_now() -> datetime:
    """Return our time of day: aware, UTC."""
    return datetime.now(UTC)


def server_time(now: datetime, offset: timedelta) -> datetime:
    """Return the server's time at our `now`, within half a second. `offset`: its clock minus ours, by its `Date`."""
    return now + offset + _CUT if abs(offset) >= _CLOCKS_AGREE else now


def http_date(text: str | None) -> datetime | None:
    """Parse an HTTP date (RFC 9110, 5.6.7) to an aware UTC `datetime`; `None` if it is missing or unreadable."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(value: str | None, *, date: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` asks to wait, 0.0 or more; `None` if it is missing or unreadable.

    It contains seconds or an HTTP date. A date is of the server's clock, so it is compared with `date`, the
    `Date` of the same answer; with `now`, our time, if there is none.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    until = http_date(value)
    if until is None:
        return None
    return max(0.0, (until - (http_date(date) or now)).total_seconds())


def retry_after_of(value: str | None, body: bytes, *, date: str | None, now: datetime) -> float | None:
    """Return the seconds that an answer asks to wait: by its header, or by `retry_after` in its JSON body.

    The body counts where the header is absent or unreadable. `value` is the header; `date` and `now` as above.
    """
    wait = retry_after(value, date=date, now=now)
    if wait is not None or not body:
        return wait
    try:
        asked = msgspec.json.decode(body)["retry_after"]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
        return None
    if isinstance(asked, float) and 0 <= asked < 1e9:
        return asked
    # A boolean is no number, and its text no seconds.
    return retry_after(str(asked), date=date, now=now) if isinstance(asked, int | str) else None
