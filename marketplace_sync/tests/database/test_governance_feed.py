"""After a restore: the feed is begun anew, and no follower takes a number for one that it knows."""

import io

import pytest
from django.core.management import CommandError, call_command

from marketplace_sync.live.feed import FeedGoneError, changes_after, newest_seq
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import AuditRow, FeedChange
from marketplace_sync.tests.support.live_feed import new_pen, put

pytestmark = pytest.mark.django_db(transaction=True)

# What a follower had been told of a database that a backup of number 3 has taken the place of.
TOLD = 5


def restart() -> str:
    said = io.StringIO()
    call_command("restartfeed", stdout=said)
    return said.getvalue()


def test_every_number_that_was_ever_told_is_answered_with_list_anew() -> None:
    pen = new_pen()
    pen.write(put("a"), put("b"), put("c"))
    pen.lease.release()
    said = restart()
    begun = newest_seq()
    assert str(begun) in said
    new_pen().write(*[put(f"new-{number}") for number in range(4)])
    # Without it, 4 and 5 would be new changes by now, and whoever had been told 5 would go on from the second.
    for after in (0, 3, TOLD, 1_000_000, begun - 1):
        with pytest.raises(FeedGoneError):
            changes_after(after, 10)
    page = changes_after(begun, 10)
    assert [change.seq for change in page.changes] == [begun + 1, begun + 2, begun + 3, begun + 4]
    assert begun < 2**53, "a number that JavaScript can tell from the next"


def test_done_again_it_goes_on_above_what_it_gave_before() -> None:
    restart()
    first = newest_seq()
    new_pen().lease.release()
    restart()
    assert newest_seq() > first
    assert not FeedChange.objects.exists()
    assert list(AuditRow.objects.values_list("verb", "outcome")) == [("restart_feed", "performed")] * 2


def test_a_daemon_at_work_is_not_disturbed() -> None:
    pen = new_pen()
    pen.write(put("a"))
    with pytest.raises(CommandError, match="Stop every runsync first"):
        restart()
    assert (newest_seq(), FeedChange.objects.count()) == (1, 1)
    assert AuditRow.objects.get().outcome == "not_possible"
    with pen.lease.writing():
        pass  # the lease is its holder's still
    pen.lease.release()
    assert acquire("another").epoch == pen.lease.epoch + 1
