"""Real daemons whose lease is dated ahead of the database's clock, which was set back (law 10)."""

import signal
import time
from datetime import datetime, timedelta

import pytest

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import LeaseRow
from marketplace_sync.tests.support.api_actors import ApiClient, agent
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import Environment, Program, mirrored, until, until_live

pytestmark = pytest.mark.django_db(transaction=True)

TAKEN_OVER_WITHIN = 20.0


def renewed_ahead(seconds: float) -> None:
    LeaseRow.objects.update(renewed_at=database_now() + timedelta(seconds=seconds))


def owner() -> str:
    return LeaseRow.objects.get().holder


def what_is_shown(client: ApiClient) -> tuple[str, bool, bool, str, bool]:
    """Return what an agent reads: state, connected, alive, the catalogue's state, and if its time is in the future."""
    status = client.get("/api/admin/websocket/status/").json()
    skills = client.get("/api/skills/")
    as_of = skills.headers.get("X-Mirror-As-Of")
    future = as_of is not None and datetime.fromisoformat(as_of) > database_now()
    return status["state"], status["connected"], status["daemon"]["alive"], skills["X-Mirror-State"], future


async def is_taken_by(watched: Mirror, daemon: Program) -> None:
    async def taken() -> bool:
        return (await watched.ask(owner)).endswith(f":{daemon.pid}")

    await until(taken, "the second has taken over")


@pytest.mark.parametrize("ahead", [20.0, 3 * 86_400.0])
async def test_standby_replaces_a_killed_owner_with_a_renewal_ahead_within_20_s(
    program_environment: Environment, ahead: float
) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        client = await watched.ask(agent)
        first = start.start("runsync")
        await until_live(watched, first)
        second = start.start("runsync")
        await second.prints("standing_by")
        first.kill()
        killed = time.monotonic()
        await watched.ask(renewed_ahead, ahead)
        server.market.put_skill(skill(100))
        assert await watched.ask(what_is_shown, client) == ("not_running", False, False, "not_running", False)
        await is_taken_by(watched, second)
        assert time.monotonic() - killed < TAKEN_OVER_WITHIN
        await until_live(watched, second)
        await watched.until_in_sync()
        assert await watched.ask(what_is_shown, client) == ("live", True, True, "live", False)
        second.send(signal.SIGTERM)
        assert (await second.ended()).status == 0


async def test_once_takes_the_lease_of_a_killed_owner_with_a_renewal_ahead(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment) as (_, watched, start):
        await watched.ask(acquire, "dead:1")
        await watched.ask(renewed_ahead, 3600.0)
        began = time.monotonic()
        ended = await start.run("runsync", "--once")
        assert (ended.status, ended.err.count("Traceback")) == (0, 0), ended.err
        assert time.monotonic() - began < TAKEN_OVER_WITHIN
        await watched.until_in_sync()


async def test_running_daemon_is_seen_immediately_after_the_clock_was_set_back() -> None:
    async with marketplace() as server, mirror(server) as watched:
        await watched.until_state("live")
        epoch = (await watched.ask(LeaseRow.objects.get)).epoch
        await watched.ask(renewed_ahead, 3600.0)
        began = time.monotonic()
        await watched.until_state("live")
        # It renews every 2 s, and at each write.
        assert time.monotonic() - began < 10
        assert (await watched.ask(LeaseRow.objects.get)).epoch == epoch
