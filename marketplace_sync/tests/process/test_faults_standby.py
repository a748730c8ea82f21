"""Law 10 with real processes: two daemons, one writer, whatever happens to the first one and its clock."""

import asyncio
import signal
import threading
import time

import pytest
from django.db import Error, connection, transaction

from marketplace_sync.mirror.lease import LEASE_SECONDS, Lease
from marketplace_sync.models import FeedChange, LeaseRow, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.database.test_faults_lease import owner
from marketplace_sync.tests.support.harness import PATIENCE, Mirror, age_the_lease, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import (
    Environment,
    Program,
    Programs,
    mirrored,
    programs,
    settings_for,
    until,
    until_live,
)
from marketplace_sync.tests.support.truth import from_the_truth, in_the_feed

pytestmark = pytest.mark.django_db(transaction=True)

# Law 10: seconds from the kill to the new owner.
TAKEN_OVER_WITHIN = 15.0


async def is_owned_by(watched: Mirror, daemon: Program) -> bool:
    return (await owner(watched)).holder.endswith(f":{daemon.pid}")


async def first_and_second(start: Programs, watched: Mirror, **settings: object) -> tuple[Program, Program]:
    """Start a daemon that is live, and one that stands by."""
    first = start.start("runsync", **settings)
    await until_live(watched, first)
    second = start.start("runsync")
    await second.prints("standing_by")
    return first, second


async def level_at_the_end(watched: Mirror, server: SimulatorServer) -> None:
    await watched.until_in_sync()
    assert await watched.ask(from_the_truth, server.market) == []
    assert await watched.ask(in_the_feed) == []


async def test_standby_replaces_a_killed_owner_within_15_s(program_environment: Environment) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        first, second = await first_and_second(start, watched)
        first.kill()
        killed = time.monotonic()
        server.market.put_skill(skill(100))
        await until(lambda: is_owned_by(watched, second), "the second has taken over")
        assert time.monotonic() - killed < TAKEN_OVER_WITHIN
        await until_live(watched, second)
        await level_at_the_end(watched, server)


async def test_paused_owner_writes_nothing_after_its_return_and_exits(program_environment: Environment) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        first, second = await first_and_second(start, watched)
        await paused_between_two_writes(first, watched)
        # As after a pause that was long enough.
        await watched.ask(age_the_lease, LEASE_SECONDS)
        # What is in its socket's buffers when it continues.
        for number in range(100, 130):
            server.market.put_skill(skill(number))
        await until(lambda: is_owned_by(watched, second), "the second has taken over")
        await until_live(watched, second)
        await level_at_the_end(watched, server)
        before = await owner(watched), await watched.ask(lambda: FeedChange.objects.count())

        first.send(signal.SIGCONT)
        ended = await first.ended()
        assert ended.status == 1
        assert "the lease has gone to" in ended.err and "Traceback" not in ended.err
        after = await owner(watched)
        assert (after.holder, after.epoch, await watched.ask(lambda: FeedChange.objects.count())) == (
            before[0].holder, before[0].epoch, before[1],
        )  # fmt: skip
        status = await watched.status()
        assert (status.row.state, status.alive, status.row.connected) == ("live", True, True)
        assert not await watched.ask(SyncRun.objects.filter(state="running").exists)
        server.market.put_skill(skill(200))
        await level_at_the_end(watched, server)


async def paused_between_two_writes(daemon: Program, watched: Mirror) -> None:
    """Send SIGSTOP while it has no lock: on SQLite a lock on the file would block any successor."""
    while True:
        daemon.send(signal.SIGSTOP)
        try:
            await asyncio.wait_for(asyncio.to_thread(_can_lock), timeout=1.0)
        except TimeoutError:
            daemon.send(signal.SIGCONT)
            continue
        return


def _can_lock() -> None:
    try:
        with Lease(LeaseRow.objects.get().epoch, "").writing():
            pass
    finally:
        connection.close()


@pytest.mark.usefixtures("postgres")
async def test_owner_paused_within_a_transaction_blocks_no_takeover(program_environment: Environment) -> None:
    async with marketplace() as server, mirror(server, start=False) as watched:
        environment = program_environment(**settings_for(server))
        with programs(environment) as start:
            named = f"{environment['DATABASE_URL']}?application_name=paused-in-the-middle"
            first, second = await first_and_second(start, watched, DATABASE_URL=named)
            await paused_within_a_transaction(first, watched, server)
            paused = time.monotonic()
            await until(lambda: is_owned_by(watched, second), "the second has taken over")
            assert time.monotonic() - paused < TAKEN_OVER_WITHIN
            first.send(signal.SIGCONT)
            ended = await first.ended()
            assert (ended.status, "Traceback" in ended.err) == (1, False)
            await until_live(watched, second)
            await level_at_the_end(watched, server)


async def paused_within_a_transaction(daemon: Program, watched: Mirror, server: SimulatorServer) -> None:
    """Send SIGSTOP while it has the lock on the lease row."""

    def has_lock() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE application_name = 'paused-in-the-middle' AND state = 'idle in transaction'"
            )
            return bool(cursor.fetchone()[0])

    number = 1000
    while True:
        for _ in range(200):
            server.market.put_skill(skill(number))
            number += 1
        await server.drain()
        daemon.send(signal.SIGSTOP)
        if await watched.ask(has_lock):
            return
        daemon.send(signal.SIGCONT)
        await asyncio.sleep(0.003)


async def test_of_two_daemons_started_together_one_owns_and_one_stands_by(program_environment: Environment) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        both = [start.start("runsync"), start.start("runsync")]
        await until(lambda: any("lease_taken" in each.err for each in both), "one of them owns the mirror")
        await until(lambda: any("standing_by" in each.err for each in both), "the other stands by")
        (first,) = [each for each in both if "lease_taken" in each.err]
        (second,) = [each for each in both if each is not first]
        await until_live(watched, first)

        async def counted() -> bool:
            return (await watched.status()).standby == 1

        await until(counted, "who stands by is counted")
        assert (await owner(watched)).epoch == 1
        assert "lease_taken" not in second.err
        first.send(signal.SIGTERM)
        assert (await first.ended()).status == 0
        free = time.monotonic()
        await until(lambda: is_owned_by(watched, second), "the second has taken over")
        assert time.monotonic() - free < 2.0
        await until_live(watched, second)
        assert (await watched.status()).standby == 0
        assert (await owner(watched)).epoch == 2
        await level_at_the_end(watched, server)


@pytest.mark.usefixtures("postgres")
async def test_lock_of_a_paused_owner_ends_with_its_lease(program_environment: Environment) -> None:
    """A session that is paused within a pipeline counts as active, so no time-out of the server ends it."""
    async with mirrored(program_environment) as (server, watched, start):
        first, second = await first_and_second(start, watched)
        first.send(signal.SIGSTOP)
        locked, gone = threading.Event(), threading.Event()

        def lock() -> None:
            try:
                with transaction.atomic():
                    with connection.cursor() as cursor:
                        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                    LeaseRow.objects.select_for_update().get(pk=1)
                    locked.set()
                    assert gone.wait(PATIENCE)
            except Error:
                pass  # the session was ended
            finally:
                connection.close()

        locking = threading.Thread(target=lock)
        locking.start()
        try:
            await until(lambda: locked.is_set(), "the row is locked")
            began = time.monotonic()
            await until(lambda: is_owned_by(watched, second), "the second has taken over")
            assert time.monotonic() - began < TAKEN_OVER_WITHIN
        finally:
            gone.set()
            locking.join()
        first.send(signal.SIGCONT)
        assert (await first.ended()).status == 1
        await until_live(watched, second)
        await level_at_the_end(watched, server)
