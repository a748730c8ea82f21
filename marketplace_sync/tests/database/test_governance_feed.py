"""Restart of the feed after a restore: no subscriber mistakes a new number for one that it knows."""

import io

import pytest
from django.core.management import CommandError, call_command

from marketplace_sync.live.feed import FeedGoneError, changes_after, newest_seq
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import AuditRow, FeedChange
from marketplace_sync.tests.support.live_feed import new_pen, put

pytestmark = pytest.mark.django_db(transaction=True)

# The newest number that a subscriber knew before a backup of number 3 was restored.
KNOWN = 5


def restart() -> str:
    output = io.StringIO()
    call_command("restartfeed", stdout=output)
    return output.getvalue()


def test_restartfeed_answers_every_earlier_number_with_410() -> None:
    pen = new_pen()
    pen.write(put("a"), put("b"), put("c"))
    pen.lease.release()
    output = restart()
    begun = newest_seq()
    assert str(begun) in output
    new_pen().write(*[put(f"new-{number}") for number in range(4)])
    # Without the restart, 4 and 5 would be new changes now, and a subscriber that knew 5 would miss both.
    for after in (0, 3, KNOWN, 1_000_000, begun - 1):
        with pytest.raises(FeedGoneError):
            changes_after(after, 10)
    page = changes_after(begun, 10)
    assert [change.seq for change in page.changes] == [begun + 1, begun + 2, begun + 3, begun + 4]
    assert begun < 2**53, "a number that JavaScript distinguishes from the next"


def test_restartfeed_twice_continues_with_higher_numbers() -> None:
    restart()
    first = newest_seq()
    new_pen().lease.release()
    restart()
    assert newest_seq() > first
    assert not FeedChange.objects.exists()
    assert list(AuditRow.objects.values_list("verb", "outcome")) == [("restart_feed", "performed")] * 2


def test_restartfeed_is_refused_while_a_daemon_runs() -> None:
    pen = new_pen()
    pen.write(put("a"))
    with pytest.raises(CommandError, match="Stop every runsync first"):
        restart()
    assert (newest_seq(), FeedChange.objects.count()) == (1, 1)
    assert AuditRow.objects.get().outcome == "not_possible"
    with pen.lease.writing():
        pass  # the holder still owns the lease
    pen.lease.release()
    assert acquire("another").epoch == pen.lease.epoch + 1
