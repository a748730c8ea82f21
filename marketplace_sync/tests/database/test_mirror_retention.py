"""Retention of tombstones (7 days) and of feed rows (by age and number), from the front and in small steps."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from marketplace_sync.mirror import retention
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.mirror.retention import forget_changes, forget_tombstones
from marketplace_sync.models import FeedChange, LeaseRow, Tombstone

pytestmark = pytest.mark.django_db


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def remove_skills(**days_ago: float) -> None:
    now = database_now()
    Tombstone.objects.bulk_create(
        [Tombstone(skill_id=name, removed_at=now - timedelta(days=days)) for name, days in days_ago.items()]
    )


def add_changes(days_ago: Sequence[float], first: int = 1) -> None:
    """Add feed rows from number `first` on, each so many days old."""
    now = database_now()
    FeedChange.objects.bulk_create(
        [
            FeedChange(
                seq=seq, kind=FeedChange.Kind.SKILL_DELETED, key="s", at=now - timedelta(days=days), source="stream"
            )
            for seq, days in enumerate(days_ago, first)
        ]
    )
    LeaseRow.objects.update(feed_seq=first + len(days_ago) - 1)


def kept() -> list[int]:
    return list(FeedChange.objects.order_by("seq").values_list("seq", flat=True))


def test_tombstones_are_deleted_after_7_days(lease: Lease) -> None:
    remove_skills(old=7.01, young=6.99, older=30)
    assert forget_tombstones(lease) == 2
    assert Tombstone.objects.get().skill_id == "young"
    assert forget_tombstones(lease) == 0


def test_a_step_deletes_the_oldest_rows_up_to_its_size(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    remove_skills(a=10, b=30, c=20)
    assert forget_tombstones(lease) == 2
    assert Tombstone.objects.get().skill_id == "a"
    add_changes([40, 40, 40, 40, 1])
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 2
    assert kept() == [3, 4, 5]
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 2
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 0
    assert kept() == [5]


def test_feed_rows_are_deleted_by_age(lease: Lease) -> None:
    add_changes([31, 30.5, 29.5, 1])
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 2
    assert kept() == [3, 4]


def test_feed_rows_are_deleted_by_number(lease: Lease) -> None:
    add_changes([1] * 10)
    assert forget_changes(lease, keep_days=30, keep_rows=3) == 7
    assert kept() == [8, 9, 10]


def test_feed_numbers_continue_when_every_row_is_deleted(lease: Lease) -> None:
    add_changes([40] * 3)
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 3
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 0
    with lease.writing() as head:
        assert head.next_seq() == 4


def test_a_clock_set_back_leaves_no_gap_in_the_feed(lease: Lease) -> None:
    # Numbers 3 and 4 were written while the clock was a month slow: a subscriber at 2 must not miss them.
    add_changes([31, 10, 40, 40, 1])
    assert forget_changes(lease, keep_days=30, keep_rows=100) == 1
    assert kept() == [2, 3, 4, 5]


def test_rows_dated_ahead_are_deleted_by_number(lease: Lease) -> None:
    add_changes([-1000, 1, 1, 1])
    assert forget_changes(lease, keep_days=30, keep_rows=2) == 2
    assert kept() == [3, 4]


def test_without_the_lease_nothing_is_deleted(lease: Lease) -> None:
    remove_skills(old=30)
    add_changes([40])
    lease.release()
    acquire("other:2")
    for forget in (lambda: forget_tombstones(lease), lambda: forget_changes(lease, keep_days=30, keep_rows=1)):
        with pytest.raises(LeaseLostError):
            forget()
    assert (Tombstone.objects.count(), kept()) == (1, [1])
