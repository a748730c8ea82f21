"""SIGTERM and SIGINT: everything received is applied, with exit status 0, within 5 s; or an error (law 13)."""

import asyncio
import json
import re
import signal
import time

import pytest

from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import LeaseRow, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import Mirror, skill
from marketplace_sync.tests.support.outages import locked_database
from marketplace_sync.tests.support.processes import (
    PATIENCE,
    Ended,
    Environment,
    Program,
    mirrored,
    programs,
    until,
    until_live,
)
from marketplace_sync.tests.support.upstream_peers import ScriptedHttp

pytestmark = pytest.mark.django_db(transaction=True)
# Started as real programs: the forked programs of the other tests must behave as these do.
really_started = pytest.mark.usefixtures("real_starts")

# A stop takes 5 s at most.
STOP_WITHIN = 5.0


async def stopped(program: Program, number: signal.Signals = signal.SIGTERM, within: float = STOP_WITHIN) -> Ended:
    """Send the signal. Return how the program ended, in time."""
    began = time.monotonic()
    program.send(number)
    ended = await program.ended()
    took = time.monotonic() - began
    assert took < within, f"the stop took {took:.1f} s"
    return ended


async def all_is_received(server: SimulatorServer) -> None:
    """Wait until the daemon has read all that was sent: it answers a ping after it."""
    heard = server.heard["pong"]
    server.send_raw('{"type": "ping"}')
    await server.drain()
    await until(lambda: server.heard["pong"] > heard, "the ping is answered")


# The load is this far ahead of the commits at most: a machine ten times overloaded still drains that in 4 s.
AHEAD = 300


async def load(server: SimulatorServer, watched: Mirror) -> None:
    """Send new skills, as fast as the mirror accepts them, until the daemon closes the stream."""
    sent = 0
    while server.clients:
        room = AHEAD + await watched.ask(Skill.objects.count) - sent
        for number in range(sent, sent + max(0, min(room, 100))):
            server.market.put_skill(skill(number))
            sent += 1
        await server.drain()


@really_started
async def test_stop_under_load_applies_everything_received(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=0) as (server, watched, start):
        daemon = start.start("runsync")
        await until_live(watched, daemon)
        loading = asyncio.create_task(load(server, watched))
        await watched.until_db(lambda: Skill.objects.count() > 1000, "the load has begun")
        ended = await stopped(daemon)
        await loading
        assert ended.status == 0, ended.err
        row = await watched.ask(state_row)
        assert (row.state, row.connected) == ("not_running", False)
        assert row.received == row.applied > 1000
        # In order, without a hole, as far as they were received.
        ids = await watched.ask(lambda: list(Skill.objects.order_by("skill_id").values_list("skill_id", flat=True)))
        assert ids == [f"skill-{number:05}" for number in range(row.received)]


async def test_queued_messages_are_applied_at_a_stop(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=0) as (server, watched, start):
        daemon = start.start("runsync")
        await until_live(watched, daemon)
        with locked_database():
            for number in range(300):
                server.market.put_skill(skill(number))
            await all_is_received(server)
            daemon.send(signal.SIGTERM)
            assert int((await daemon.prints(r"stopping waiting=(\d+)"))[1]) == 300
        ended = await daemon.ended()
        assert ended.status == 0, ended.err
        assert await watched.ask(Skill.objects.count) == 300


@really_started
async def test_refused_and_shed_messages_are_counted_at_a_stop(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=5, ATOM_SAAS_WS_RATE_LIMIT=200) as (server, watched, start):
        daemon = start.start("runsync")
        await until_live(watched, daemon)
        # One that is applied, the same again, and an older one.
        newest = server.market.put_skill(skill(1))
        for each in (newest, {**newest, "name": "Older", "updated_at": "2026-01-01T00:00:00Z"}):
            server.send_raw(json.dumps({"type": "skill_update", "data": each}))
        server.faults.add("malformed", every=5)
        for number in range(1000):
            server.market.put_skill(skill(1000 + number % 300, version=f"1.0.{number}"))
        await all_is_received(server)
        ended = await stopped(daemon, signal.SIGINT)
        assert ended.status == 0, ended.err
        row = await watched.ask(state_row)
        assert row.received >= 1203
        assert min(row.applied, row.unchanged, row.stale, row.rejected, row.shed) > 0
        assert row.received == row.applied + row.unchanged + row.stale + row.rejected + row.shed


async def test_stop_during_a_sync_keeps_what_was_read_and_closes_the_run(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=50, ATOM_SAAS_PAGE_SIZE=10) as (server, watched, start):
        release = asyncio.Event()

        async def hang(target: str) -> None:
            if "page=5&" in target:
                await release.wait()

        server.on_request = hang
        # The daemon was asked to end, and did. A single full sync has not done what it was started for.
        for options, status in (((), 0), (("--once",), 1)):
            await watched.ask(Skill.objects.all().delete)
            program = start.start("runsync", *options)
            await watched.until_db(lambda: Skill.objects.count() == 40, "four of five pages are written")
            ended = await stopped(program)
            assert ended.status == status
            assert ("runsync: interrupted before it was done\n" in ended.err) is bool(options)
            run = await watched.ask(lambda: SyncRun.objects.latest("pk"))
            assert (run.state, run.finished_at is not None) == ("interrupted", True)
            assert await watched.ask(Skill.objects.count) == 40
            assert (await watched.ask(LeaseRow.objects.get)).holder == ""
        release.set()


async def test_standby_stops_immediately_and_takes_over_within_2_s_of_a_clean_stop(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        first = start.start("runsync")
        await until_live(watched, first)
        second, third = start.start("runsync"), start.start("runsync")
        for waiting in (second, third):
            await waiting.prints("standing_by")

        async def standing_by(count: int) -> bool:
            status = await watched.status()
            return status.standby == count and status.daemon.endswith(f":{first.pid}")

        await until(lambda: standing_by(2), "both are counted")
        assert (await stopped(third, within=2.0)).status == 0
        assert await standing_by(1)

        epoch = (await watched.ask(LeaseRow.objects.get)).epoch
        assert (await stopped(first)).status == 0
        free = time.monotonic()

        async def second_has_it() -> bool:
            return (await watched.ask(LeaseRow.objects.get)).holder.endswith(f":{second.pid}")

        await until(second_has_it, "the second daemon has taken over")
        assert time.monotonic() - free < 2.0
        await until_live(watched, second)
        assert (await watched.ask(LeaseRow.objects.get)).epoch == epoch + 1
        assert (await watched.status()).standby == 0
        server.market.put_skill(skill(500))
        await watched.until_in_sync()
        assert (await stopped(second)).status == 0


@really_started
@pytest.mark.usefixtures("sqlite")  # it uses no database
async def test_ctrl_c_ends_a_waiting_command_with_one_line(program_environment: Environment) -> None:
    async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedHttp(silence) as server:
        settings = {"ATOM_SAAS_API_URL": server.url, "ATOM_SAAS_API_TOKEN": "t" * 20}
        with programs(program_environment(**settings)) as start:
            checking = start.start("checkmarketplace")
            await until(lambda: bool(server.asked), "the health is asked for", PATIENCE)
            ended = await stopped(checking, signal.SIGINT)
    assert (ended.status, ended.err) == (130, "Interrupted.\n")


@really_started
async def test_drain_past_its_deadline_reports_the_loss_and_exits_1(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        daemon = start.start("runsync")
        await until_live(watched, daemon)
        standby = start.start("runsync")
        await standby.prints("standing_by")
        with locked_database():
            for number in range(100, 137):
                server.market.put_skill(skill(number))
            await all_is_received(server)
            ended = await stopped(daemon, within=STOP_WITHIN + 0.5)
            assert ended.status == 1
            reported = re.search(r"stopped with (\d+) received changes not applied", ended.err)
            assert reported, ended.err
            assert int(reported[1]) == 37
            # A standby has nothing to lose, but must not hang either: PostgreSQL's time-outs end it in
            # order, SQLite's lock does not.
            assert (await stopped(standby, within=STOP_WITHIN + 0.5)).status in (0, 1)
        assert await watched.ask(Skill.objects.count) == 25
