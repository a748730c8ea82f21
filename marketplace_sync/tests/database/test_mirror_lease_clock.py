"""An unbelievable time of renewal is neither a sign of life nor a proof of death: the lease is watched (law 10).

Clocks are handed in: nothing here waits.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import Error, connection, transaction

from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.governance.feed import RestartFeed
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.dead_letters import recent_rate
from marketplace_sync.mirror.lease import (
    LEASE_SECONDS,
    WATCH_SECONDS,
    Lease,
    LeaseTakenError,
    acquire,
    stand_by,
    watch_doubtful_lease,
    watch_of_standby,
)
from marketplace_sync.mirror.metrics import decided_since, save_feed_server
from marketplace_sync.mirror.retention import forget_minutes, forget_tombstones
from marketplace_sync.mirror.state import close_state, save_state
from marketplace_sync.mirror.status import DEAD_AFTER_SECONDS, Observer, freshness, status
from marketplace_sync.models import (
    DeadLetter,
    FeedServer,
    LeaseRow,
    MinuteFigures,
    Standby,
    SyncRun,
    Tombstone,
    WebSocketState,
)
from marketplace_sync.monitoring.facts import read_facts

pytestmark = pytest.mark.django_db

AHEAD = [5.0, 20.0, 3600.0, 3 * 86_400.0, None]


def renewed_ahead(seconds: float | None) -> None:
    """Date the last renewal ahead of the database's clock; `None`: leave it without a date."""
    at = None if seconds is None else database_now() + timedelta(seconds=seconds)
    LeaseRow.objects.update(renewed_at=at)


class Seconds:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_standby_takes_over_within_20_s_however_far_ahead_the_renewal_is(ahead: float | None) -> None:
    acquire("dead:1")
    renewed_ahead(ahead)
    clock, watch = Seconds(), watch_of_standby()
    while True:
        try:
            lease = acquire("standby:2", watch, clock=clock)
            break
        except LeaseTakenError as taken:
            assert taken.uncertain and taken.holder == "dead:1"
        clock.now += 1.0
    assert LEASE_SECONDS <= clock.now < 20
    assert (lease.epoch, LeaseRow.objects.get().holder) == (2, "standby:2")
    assert abs(LeaseRow.objects.get().renewed_at - database_now()) < timedelta(seconds=5)


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_living_daemon_keeps_the_lease_while_the_clock_is_set_back(ahead: float | None) -> None:
    owner = acquire("alive:1")
    clock, watch = Seconds(), watch_of_standby()
    for second in range(60):
        if second % 20 == 0:
            renewed_ahead(ahead)  # as after the clock was set back
        elif second % 2 == 1:
            owner.renew()
        with pytest.raises(LeaseTakenError, match="alive:1"):
            acquire("standby:2", watch, clock=clock)
        clock.now += 1.0
    assert LeaseRow.objects.get().epoch == owner.epoch


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_single_look_does_not_take_over_the_lease(ahead: float | None) -> None:
    acquire("dead:1")
    renewed_ahead(ahead)
    with pytest.raises(LeaseTakenError) as taken:
        acquire("other:2")
    assert taken.value.uncertain
    assert "ahead of the database's clock" in str(taken.value) or ahead is None


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_command_takes_the_lease_of_a_dead_daemon_after_a_watch(ahead: float | None) -> None:
    acquire("dead:1")
    renewed_ahead(ahead)
    clock = Seconds()
    watch = watch_doubtful_lease(clock=clock, sleep=clock.sleep)
    assert WATCH_SECONDS <= clock.now < WATCH_SECONDS + 1
    assert acquire("command:2", watch, clock=clock).epoch == 2


def test_a_command_leaves_the_lease_to_a_holder_that_renews() -> None:
    owner = acquire("alive:1")
    renewed_ahead(3600)
    clock = Seconds()

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now >= 2:
            owner.renew()

    watch = watch_doubtful_lease(clock=clock, sleep=sleep)
    assert clock.now < 3
    with pytest.raises(LeaseTakenError, match="alive:1") as taken:
        acquire("command:2", watch, clock=clock)
    assert not taken.value.uncertain


def test_a_certain_lease_is_not_watched() -> None:
    def never(seconds: float) -> None:
        raise AssertionError("it waits")

    watch_doubtful_lease(sleep=never)
    lease = acquire("alive:1")
    watch_doubtful_lease(sleep=never)
    lease.release()
    watch_doubtful_lease(sleep=never)


@pytest.mark.django_db(transaction=True)
def test_the_feed_is_restarted_although_a_dead_daemons_renewal_is_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    acquire("dead:1")
    renewed_ahead(3600)
    with pytest.raises(NotPossibleError, match="ahead of the database's clock"):
        RestartFeed(actor=COMMAND_LINE).perform()
    monkeypatch.setattr("marketplace_sync.mirror.lease.WATCH_SECONDS", 0.1)
    out = StringIO()
    call_command("restartfeed", stdout=out)
    assert "The feed continues after" in out.getvalue()


@pytest.mark.parametrize("write", [lambda lease: lease.renew(), lambda lease: begin_and_end(lease)])
@pytest.mark.parametrize("ahead", AHEAD)
def test_an_owner_renews_at_its_next_write_if_the_renewal_is_ahead(ahead: float | None, write: Any) -> None:
    owner = acquire("alive:1")
    renewed_ahead(ahead)
    write(owner)
    assert abs(LeaseRow.objects.get().renewed_at - database_now()) < timedelta(seconds=2)


def begin_and_end(lease: Lease) -> None:
    with lease.writing():
        pass


def test_a_released_lease_stays_free_while_its_last_owner_writes() -> None:
    lease = acquire("a:1")
    lease.release()
    begin_and_end(lease)
    assert LeaseRow.objects.get().renewed_at is None


# What status and freshness show meanwhile.


@contextmanager
def live_state() -> Iterator[None]:
    WebSocketState.objects.create(pk=1)
    save_state(acquire("dead:1"), {"state": "live", "connected": True}, {})
    yield


@pytest.mark.parametrize("ahead", AHEAD)
def test_the_status_is_not_running_while_the_heartbeat_is_ahead(ahead: float | None) -> None:
    with live_state():
        assert status().alive
        renewed_ahead(ahead)
        found = status()
        assert (found.alive, found.row.state, found.row.connected) == (False, "not_running", False)
        assert found.heartbeat_at is None
        assert found.ahead_seconds == pytest.approx(ahead or 0.0, abs=2)
        fresh = freshness()
        assert fresh.state == "not_running"
        assert fresh.as_of is None or fresh.as_of <= database_now()


def test_a_dead_daemon_stays_dead_when_the_clock_reaches_its_heartbeat() -> None:
    observer, noon = Observer(), database_now()
    beat = noon + timedelta(seconds=20)
    for second in range(60):
        sign = observer.look("dead:1", 1, beat, database_now=noon + timedelta(seconds=second), now=100.0 + second)
        assert (sign.alive, sign.at) == (False, None)


def test_a_dead_daemon_is_dead_although_the_clock_was_set_back_a_little() -> None:
    observer, noon = Observer(), database_now()
    assert observer.look("dead:1", 1, noon, database_now=noon, now=0.0).alive
    # The clock was set back by 14 s: by it the heartbeat is only 2 s old, and stays young for longer.
    late = noon + timedelta(seconds=2)
    assert observer.look("dead:1", 1, noon, database_now=late, now=DEAD_AFTER_SECONDS - 0.1).alive
    assert not observer.look("dead:1", 1, noon, database_now=late, now=DEAD_AFTER_SECONDS + 0.1).alive


def test_a_living_daemon_is_seen_at_its_next_renewal_after_the_clock_was_set_back() -> None:
    with live_state():
        renewed_ahead(3600)
        assert not status().alive
        Lease(1, "dead:1").renew()
        found = status()
        assert (found.alive, found.row.state, found.ahead_seconds) == (True, "live", 0.0)


@pytest.mark.parametrize("alive", [True, False])
def test_freshness_is_never_in_the_future(alive: bool) -> None:
    with live_state():
        later = database_now() + timedelta(hours=1)
        if not alive:
            renewed_ahead(3600)
        WebSocketState.objects.update(in_sync_at=later, state="live" if not alive else "reconnecting")
        old = database_now() - timedelta(hours=2)
        SyncRun.objects.create(reason="poll", state="done", is_clean=True, started_at=old, finished_at=old)
        SyncRun.objects.create(reason="poll", state="done", is_clean=True, started_at=later, finished_at=later)
        # Only the full sync of two hours ago is believable; the times ahead prove nothing.
        assert freshness().as_of == old


def test_a_daemon_deletes_a_time_ahead_at_its_start() -> None:
    with live_state():
        WebSocketState.objects.update(in_sync_at=database_now() + timedelta(hours=1))
        close_state(Lease(1, "dead:1"))
        assert WebSocketState.objects.get().in_sync_at is None


# Other stored times that are compared with the current time.


def test_a_standby_dated_ahead_is_not_counted_and_deleted() -> None:
    acquire("a:1")
    stand_by("gone:2")
    Standby.objects.update(seen_at=database_now() + timedelta(hours=1))
    assert status().standby == 0
    stand_by("here:3")
    assert status().standby == 1
    assert list(Standby.objects.values_list("holder", flat=True)) == ["here:3"]


def test_a_web_process_dated_ahead_is_not_counted_and_deleted() -> None:
    save_feed_server("gone:2", 7, 3)
    FeedServer.objects.update(seen_at=database_now() + timedelta(hours=1))
    assert read_facts().feed_clients == 0
    save_feed_server("here:3", 1, 0)
    assert list(FeedServer.objects.values_list("name", flat=True)) == ["here:3"]


def test_dead_letters_dated_ahead_do_not_count_for_the_last_hour() -> None:
    at = database_now() + timedelta(hours=5)
    DeadLetter.objects.create(
        source="stream", code="missing", reason="required", head=b"{}", size=2, digest="d", first_seen_at=at,
        last_seen_at=at,
    )  # fmt: skip
    assert read_facts().dead_letters_last_hour == 0
    assert recent_rate() == {}


def test_a_tombstone_dated_ahead_begins_its_seven_days_now() -> None:
    lease = acquire("a:1")
    at = database_now() + timedelta(days=400)
    Tombstone.objects.create(skill_id="s", arrival=0, removed_at=at)
    forget_tombstones(lease)
    assert Tombstone.objects.get().removed_at <= database_now()


def test_minute_figures_more_than_a_day_ahead_are_deleted() -> None:
    lease = acquire("a:1")
    for hours in (-25, -1, 1, 25):
        MinuteFigures.objects.create(at=database_now() + timedelta(hours=hours))
    assert forget_minutes(lease) == 2


def test_a_clean_sync_dated_ahead_is_not_the_last_one() -> None:
    old, later = database_now() - timedelta(hours=2), database_now() + timedelta(days=2)
    for at in (old, later):
        SyncRun.objects.create(reason="poll", state="done", is_clean=True, started_at=at, finished_at=at)
    assert read_facts().clean_sync_at == old


def test_decisions_are_counted_again_after_the_clock_was_set_back() -> None:
    later = database_now() + timedelta(hours=1)
    until, _ = decided_since(later)
    assert until <= database_now()


@pytest.mark.usefixtures("postgres")
@pytest.mark.django_db(transaction=True)
def test_taking_the_lease_ends_the_lock_of_a_dead_owner_with_a_renewal_ahead() -> None:
    """PostgreSQL: an owner that is cut off in a transaction keeps the row locked, and nobody can take the lease."""
    acquire("dead:1")
    renewed_ahead(3600)
    locked, gone = threading.Event(), threading.Event()

    def keep_lock() -> None:
        try:
            with transaction.atomic():
                LeaseRow.objects.select_for_update().get(pk=1)
                locked.set()
                gone.wait(60)
        except Error:
            pass  # its session was ended
        finally:
            connection.close()

    locker = threading.Thread(target=keep_lock)
    locker.start()
    try:
        assert locked.wait(10)
        clock, watch = Seconds(), watch_of_standby()
        with pytest.raises(LeaseTakenError) as taken:
            acquire("standby:2", watch, clock=clock)
        assert taken.value.uncertain
        clock.now += LEASE_SECONDS
        assert acquire("standby:2", watch, clock=clock).epoch == 2
    finally:
        gone.set()
        locker.join()
