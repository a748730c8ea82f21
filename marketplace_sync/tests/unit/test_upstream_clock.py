"""`Date` and `Retry-After`, from servers that write them well and from others."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from marketplace_sync.tests.support.upstream_peers import NOW
from marketplace_sync.upstream.clock import http_date, retry_after


def test_an_http_date_is_utc() -> None:
    assert http_date("Sun, 01 Mar 2026 12:00:00 GMT") == NOW
    assert http_date("Sun, 01 Mar 2026 14:00:00 +0200") == NOW
    assert http_date("Sun, 01 Mar 2026 12:00:00 -0000") == NOW


@pytest.mark.parametrize("text", [None, "", "now", "Sun, 99 Mar 2026 12:00:00 GMT", "1767225600", "\ud800", "9" * 5000])
def test_what_is_no_date_is_none(text: str | None) -> None:
    assert http_date(text) is None


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), ("7", 7.0), (" 1.5 ", 1.5)])
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert retry_after(value, date=None, now=NOW) == seconds


def test_a_retry_after_date_is_compared_with_the_date_of_its_answer() -> None:
    server = datetime(2031, 1, 1, tzinfo=UTC)
    value = format_datetime(server + timedelta(seconds=9), usegmt=True)
    assert retry_after(value, date=format_datetime(server, usegmt=True), now=NOW) == 9.0


def test_a_retry_after_date_in_an_answer_without_a_date_is_compared_with_our_clock() -> None:
    assert retry_after(format_datetime(NOW + timedelta(seconds=9), usegmt=True), date=None, now=NOW) == 9.0


def test_a_retry_after_in_the_past_is_no_wait() -> None:
    assert retry_after(format_datetime(NOW - timedelta(hours=1), usegmt=True), date=None, now=NOW) == 0.0


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1e3", "9" * 5000, "inf", "nan"])
def test_an_unreadable_retry_after_is_none(value: str | None) -> None:
    assert retry_after(value, date=None, now=NOW) is None
