"""Reading the change feed: the order of commits, what is gone, what is filtered."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from marketplace_sync.live import feed
from marketplace_sync.live.feed import FeedGoneError, changes_after, newest_seq
from marketplace_sync.mirror.feed import append, feed_row
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.retention import forget_changes
from marketplace_sync.models import FeedChange, LeaseRow
from marketplace_sync.tests.support.live_feed import PATIENCE, category, change, new_pen, put, rate, remove

pytestmark = pytest.mark.django_db(transaction=True)

ROW = (FeedChange.Kind.SKILL_DELETED, [], {})


def seqs(page: feed.Page) -> list[int]:
    return [change.seq for change in page.changes]


def test_empty_feed_has_nothing_after_0() -> None:
    assert changes_after(0, 10) == feed.Page((), 0, 0)
    acquire("somebody")
    assert changes_after(0, 10) == feed.Page((), 0, 0)


def test_pages_have_no_gap_and_no_repetition() -> None:
    pen = new_pen()
    for number in range(7):
        pen.write(put(f"s{number}"))
    after, pages = 0, []
    while after < newest_seq():
        page = changes_after(after, 3)
        assert page.newest == 7
        pages.append(seqs(page))
        after = page.next_after
    assert pages == [[1, 2, 3], [4, 5, 6], [7]]


def test_creation_has_the_whole_record_and_update_the_changed_fields() -> None:
    pen = new_pen()
    pen.write(put("s1", version="1"))
    pen.write(change("s1", version="2"))
    created, updated = changes_after(0, 10).changes
    assert (created.kind, created.key, created.source) == ("skill_created", "s1", "stream")
    assert created.data["version"] == "1" and "code" in created.data
    assert created.at.utcoffset() is not None
    assert (updated.kind, updated.data["version"]) == ("skill_updated", "2")
    assert updated.data.keys() == {"version", "remote_updated_at"}


def test_pruned_numbers_are_gone_and_kept_ones_are_not() -> None:
    pen = new_pen()
    pen.write(*[put(f"s{number}") for number in range(10)])
    forget_changes(pen.lease, keep_days=30, keep_rows=4)
    assert seqs(changes_after(6, 10)) == [7, 8, 9, 10]
    for after in (0, 5):
        with pytest.raises(FeedGoneError) as caught:
            changes_after(after, 10)
        assert (caught.value.after, caught.value.newest) == (after, 10)
        with pytest.raises(FeedGoneError):
            changes_after(after, 10, keys=["s9"])


def test_fully_pruned_feed_can_be_read_from_its_newest_number_only() -> None:
    pen = new_pen()
    pen.write(put("s1"), put("s2"))
    FeedChange.objects.all().delete()
    assert changes_after(2, 10).changes == ()
    with pytest.raises(FeedGoneError):
        changes_after(1, 10)


def test_number_ahead_of_the_newest_is_gone() -> None:
    new_pen().write(put("s1"))
    with pytest.raises(FeedGoneError, match="ahead of the newest, 1"):
        changes_after(2, 10)


def test_a_row_pruned_between_two_reads_of_a_filtered_page_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pen = new_pen()
    pen.write(*[put(f"s{number}") for number in range(10)])

    def newest_then_prune() -> int:
        newest = newest_seq()
        forget_changes(pen.lease, keep_days=30, keep_rows=1)
        return newest

    monkeypatch.setattr(feed, "newest_seq", newest_then_prune)
    with pytest.raises(FeedGoneError):
        changes_after(0, 10, kinds=["skill_created"])
    with pytest.raises(FeedGoneError):
        changes_after(0, 10)


def test_filtered_page_reports_how_far_it_reached() -> None:
    pen = new_pen()
    pen.write(put("s1"), category("c"), put("s2"))
    pen.write(rate("s1", 4.0, 1))
    pen.write(remove("s2"))
    every = changes_after(0, 100).changes
    created = changes_after(0, 100, kinds=["skill_created"])
    assert [change.key for change in created.changes] == ["s1", "s2"]
    assert created.next_after == every[-1].seq == 5
    assert [change.kind for change in changes_after(0, 100, keys=["s2"]).changes] == ["skill_created", "skill_deleted"]
    limited = changes_after(0, 1, kinds=["skill_created"])
    assert len(limited.changes) == 1 and limited.next_after == limited.changes[0].seq


def test_filtered_read_scans_a_bounded_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_SCANNED", 4)
    pen = new_pen()
    pen.write(*[put(f"s{number}") for number in range(10)])
    pages, after = [], 0
    while after < 10:
        page = changes_after(after, 100, keys=["s9"])
        pages.append((seqs(page), page.next_after))
        after = page.next_after
    assert pages == [([], 4), ([], 8), ([10], 10)]


def test_second_of_two_overlapping_transactions_gets_its_number_after_the_first_commit(
    postgres: None,
) -> None:
    """A sequence would assign it immediately; a reader in between would see 2, continue from it and never see 1."""
    lease = acquire("writer")
    first_has_written, first_may_commit = threading.Event(), threading.Event()

    def write(written: threading.Event | None) -> int:
        try:
            with lease.writing() as head:
                append([feed_row("s", ROW, FeedChange.Source.STREAM, None)], head)
                if written is not None:
                    written.set()
                    assert first_may_commit.wait(PATIENCE)
                return head.feed_seq
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(write, first_has_written)
        assert first_has_written.wait(PATIENCE)
        second = threads.submit(write, None)
        try:
            with connection.cursor() as cursor:
                waiting = 0
                while not waiting:  # ends by the test's time-out
                    cursor.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND wait_event_type = 'Lock' AND query LIKE '%%marketplace_sync_lease%%FOR UPDATE%%'"
                    )
                    waiting = cursor.fetchone()[0]
            assert not second.done()
            assert changes_after(0, 10) == feed.Page((), 0, 0)
        finally:
            first_may_commit.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 2)
    assert seqs(changes_after(0, 10)) == [1, 2]


def test_reader_beside_many_writers_sees_numbers_in_order() -> None:
    """Eight writers write concurrently; a reader that continues from the last number must see each one in order."""
    lease = acquire("writer")
    writers, each = (8, 15) if connection.vendor == "postgresql" else (3, 10)

    def write(lease: Lease) -> None:
        try:
            for _ in range(each):
                with lease.writing() as head:
                    append([feed_row("s", ROW, FeedChange.Source.STREAM, None)] * 2, head)
        finally:
            connections.close_all()

    seen: list[int] = []
    with ThreadPoolExecutor(writers) as threads:
        running = [threads.submit(write, lease) for _ in range(writers)]
        while not all(future.done() for future in running):
            seen += seqs(changes_after(len(seen), 1000))
        for future in running:
            future.result()
    seen += seqs(changes_after(len(seen), 1000))
    assert seen == list(range(1, writers * each * 2 + 1))
    assert LeaseRow.objects.get().feed_seq == len(seen)
