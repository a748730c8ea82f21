"""The lease of a daemon with a wrong clock, or under load."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from marketplace_sync.daemon.clocks import Clocks
from marketplace_sync.daemon.core import Daemon
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.owning import holder_name, wait_for_lease
from marketplace_sync.mirror.lease import RENEW_SECONDS, acquire
from marketplace_sync.models import LeaseRow, Skill
from marketplace_sync.tests.support.harness import Mirror, age_the_lease, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import until

pytestmark = pytest.mark.django_db(transaction=True)


async def owner(watched: Mirror) -> LeaseRow:
    return await watched.ask(LeaseRow.objects.get)


@pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)])
async def test_host_with_a_wrong_clock_owns_the_lease_and_hands_it_over(off: timedelta) -> None:
    async with marketplace() as server, mirror(server, start=False) as watched:
        database, stop = Database(), asyncio.Event()
        lease = await wait_for_lease(database, holder_name(), stop)
        assert lease is not None
        daemon = Daemon(watched.config, clocks=Clocks(wall=lambda: datetime.now(UTC) + off))
        watched.task = asyncio.create_task(daemon.run(database, lease, stop))
        watched.stop = stop
        await watched.until_state("live")
        renewed = (await owner(watched)).renewed_at
        server.market.put_skill(skill(100))
        server.market.delete_skill("skill-00003")
        await watched.until_in_sync()

        async def renewed_since() -> bool:
            return (await owner(watched)).renewed_at > renewed

        await until(renewed_since, "the lease is renewed, by the database's clock")
        status = await watched.status()
        assert (status.alive, status.row.state) == (True, "live")
        await watched.end()
        await database.close()
        # The next owner, whose clock differs, does not have to wait.
        assert (await watched.ask(acquire, "other:2")).epoch == lease.epoch + 1


def test_flood_of_batches_does_not_prevent_lease_renewal() -> None:
    """On SQLite waiting for the lock is not fair: each writer renews, or the lease could expire under load."""
    lease = acquire("busy:1")
    age_the_lease(RENEW_SECONDS + 1)
    before = LeaseRow.objects.get().renewed_at
    with lease.writing():
        Skill.objects.count()
    after = LeaseRow.objects.get()
    assert after.renewed_at - before >= timedelta(seconds=RENEW_SECONDS)
    with lease.writing() as head:
        head.next_seq()
    # Not at every batch: once per two seconds is enough.
    assert LeaseRow.objects.get().renewed_at == after.renewed_at
    assert LeaseRow.objects.get().feed_seq == after.feed_seq + 1
