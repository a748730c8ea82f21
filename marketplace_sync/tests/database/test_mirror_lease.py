"""Law 10: one writer, identified by an epoch, by the database's clock."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import (
    LEASE_SECONDS,
    STANDBY_SECONDS,
    Lease,
    LeaseLostError,
    LeaseTakenError,
    acquire,
    leave_standby,
    stand_by,
)
from marketplace_sync.mirror.runs import begin_run
from marketplace_sync.mirror.state import save_state
from marketplace_sync.mirror.status import DEAD_AFTER_SECONDS, status
from marketplace_sync.models import Category, LeaseRow, Standby, SyncRun, WebSocketState

pytestmark = pytest.mark.django_db


def age(seconds: float) -> None:
    """Set the holder's last renewal to that long ago, by the database's clock."""
    LeaseRow.objects.update(renewed_at=database_now() - timedelta(seconds=seconds))


def test_the_first_owner_has_epoch_one_and_is_named() -> None:
    lease = acquire("a:1")
    row = LeaseRow.objects.get()
    assert (lease.epoch, row.epoch, row.holder) == (1, 1, "a:1")
    assert row.renewed_at is not None


def test_a_taken_lease_is_refused_with_the_name_of_its_holder() -> None:
    acquire("a:1")
    age(3)
    with pytest.raises(LeaseTakenError, match=r"a:1 \(seen 3 s ago\)") as taken:
        acquire("b:2")
    assert taken.value.holder == "a:1"
    assert 3 <= taken.value.age < LEASE_SECONDS
    assert LeaseRow.objects.get().epoch == 1


def test_a_taken_lease_is_refused_to_its_own_holder() -> None:
    acquire("a:1")
    with pytest.raises(LeaseTakenError):
        acquire("a:1")


def test_an_expired_lease_is_taken_with_a_new_epoch() -> None:
    acquire("a:1")
    age(LEASE_SECONDS)
    assert acquire("b:2").epoch == 2
    assert LeaseRow.objects.get().holder == "b:2"


def test_a_lease_is_refused_until_it_expires() -> None:
    acquire("a:1")
    age(LEASE_SECONDS - 1)
    with pytest.raises(LeaseTakenError):
        acquire("b:2")


def test_the_epoch_is_checked_before_the_commit_at_the_latest() -> None:
    lease = acquire("a:1")
    age(LEASE_SECONDS)
    acquire("b:2")
    with pytest.raises(LeaseLostError, match="b:2"), lease.locking():
        Category.objects.create(name="of an owner who lost the lease")
    assert not Category.objects.exists()


def test_renewal_keeps_the_lease() -> None:
    lease = acquire("a:1")
    age(LEASE_SECONDS + 5)
    lease.renew()  # late, but nobody took it meanwhile
    with pytest.raises(LeaseTakenError):
        acquire("b:2")


def test_a_released_lease_is_free_immediately() -> None:
    acquire("a:1").release()
    assert acquire("b:2").epoch == 2


def test_releasing_a_lost_lease_does_not_affect_the_new_owner() -> None:
    old = acquire("a:1")
    age(LEASE_SECONDS)
    acquire("b:2")
    old.release()
    assert LeaseRow.objects.get().holder == "b:2"


def test_the_lease_expires_by_the_databases_clock() -> None:
    acquire("a:1")
    with time_machine.travel(datetime(2040, 1, 1, tzinfo=UTC)):
        with pytest.raises(LeaseTakenError):
            acquire("b:2")
        assert status().alive
    age(LEASE_SECONDS)
    with time_machine.travel(datetime(2001, 1, 1, tzinfo=UTC)):
        assert acquire("b:2").epoch == 2


def _begin(lease: Lease) -> Any:
    return begin_run(lease, "start")


def _save(lease: Lease) -> Any:
    return save_state(lease, {"state": WebSocketState.State.LIVE}, {})


@pytest.mark.parametrize("write", [Lease.renew, _begin, _save])
def test_a_paused_owner_finds_another_epoch_and_writes_nothing(write: Callable[[Lease], Any]) -> None:
    WebSocketState.objects.create(pk=1)
    old = acquire("a:1")
    age(LEASE_SECONDS)
    acquire("b:2")
    before = LeaseRow.objects.values().get()
    with pytest.raises(LeaseLostError, match="b:2"):
        write(old)
    assert LeaseRow.objects.values().get() == before
    assert not SyncRun.objects.exists()
    assert WebSocketState.objects.get().state == WebSocketState.State.NOT_RUNNING


def test_writing_without_any_lease_row_is_refused() -> None:
    with pytest.raises(LeaseLostError, match="nobody"):
        Lease(1, "a:1").renew()


def test_feed_numbers_are_stored_only_with_the_commit() -> None:
    lease = acquire("a:1")
    with lease.writing() as head:
        assert (head.next_seq(), head.next_seq()) == (1, 2)
    with pytest.raises(RuntimeError), lease.writing() as head:
        head.next_seq()
        raise RuntimeError("rolled back")
    with lease.writing() as head:
        assert head.feed_seq == 2


def test_a_new_owner_continues_from_the_newest_feed_number() -> None:
    lease = acquire("a:1")
    with lease.writing() as head:
        head.next_seq()
    lease.release()
    with acquire("b:2").writing() as head:
        assert head.next_seq() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("row_exists", [True, False])
def test_of_simultaneous_takers_exactly_one_gets_the_lease(row_exists: bool) -> None:
    if row_exists:
        acquire("before:0").release()
    barrier = threading.Barrier(4)
    leases: list[Lease] = []
    refused: list[str] = []

    def take(name: str) -> None:
        try:
            barrier.wait(10)
            leases.append(acquire(name))
        except LeaseTakenError as taken:
            refused.append(taken.holder)
        finally:
            connection.close()

    takers = [threading.Thread(target=take, args=(f"taker:{number}",)) for number in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(20)
    assert len(leases) == 1
    assert refused == [leases[0].holder] * 3
    assert LeaseRow.objects.get().epoch == leases[0].epoch == 1 + row_exists


@pytest.mark.django_db(transaction=True)
def test_simultaneous_writers_never_use_a_feed_number_twice() -> None:
    lease = acquire("a:1")
    given: list[int] = []

    def write() -> None:
        try:
            for _ in range(10):
                with lease.writing() as head:
                    given.append(head.next_seq())
        finally:
            connection.close()

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    assert given == list(range(1, 31))


def test_a_standby_is_counted_until_it_leaves_takes_over_or_is_silent() -> None:
    acquire("a:1")
    for name in ("b:2", "c:3", "d:4"):
        stand_by(name)
    stand_by("b:2")
    assert status().standby == 3
    leave_standby("b:2")
    assert status().standby == 2
    Standby.objects.filter(holder="c:3").update(seen_at=database_now() - timedelta(seconds=STANDBY_SECONDS + 1))
    assert status().standby == 1
    stand_by("d:4")
    assert set(Standby.objects.values_list("holder", flat=True)) == {"d:4"}
    age(LEASE_SECONDS)
    acquire("d:4")
    assert status().standby == 0


@pytest.mark.parametrize(
    ("seconds", "alive"), [(0, True), (DEAD_AFTER_SECONDS - 1, True), (DEAD_AFTER_SECONDS + 1, False)]
)
def test_a_daemon_with_an_old_heartbeat_is_not_running(seconds: float, alive: bool) -> None:
    WebSocketState.objects.create(pk=1)
    lease = acquire("a:1")
    save_state(lease, {"state": WebSocketState.State.LIVE, "connected": True}, {})
    age(seconds)
    found = status()
    assert (found.alive, found.daemon) == (alive, "a:1")
    assert (found.row.state, found.row.connected) == (("live", True) if alive else ("not_running", False))


def test_an_empty_database_shows_no_running_daemon() -> None:
    found = status()
    assert (found.alive, found.daemon, found.heartbeat_at, found.standby) == (False, "", None, 0)
    assert (found.row.state, found.row.connected, found.row.enabled) == ("not_running", False, True)


def test_the_databases_clock_moves_within_a_transaction() -> None:
    first = database_now()
    assert first.tzinfo is UTC
    later = first
    for _ in range(100_000):  # SQLite's has milliseconds
        if (later := database_now()) > first:
            break
    assert later > first
