"""Commands over a listing with records that cannot be read."""

import json
from typing import Any

import pytest

from marketplace_sync.daemon import command_desk
from marketplace_sync.mirror.status import freshness
from marketplace_sync.models import Skill, SyncRun, WebSocketState
from marketplace_sync.tests.database.test_daemon_listing import live, sync
from marketplace_sync.tests.database.test_refused_records import NEW_FORMATS, records_check, spoil
from marketplace_sync.tests.support.harness import skill
from marketplace_sync.tests.support.processes import Environment, mirrored
from marketplace_sync.upstream import market as upstream_market

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_market, "RETRY_DELAYS", (0.01, 0.02, 0.04))
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


@pytest.mark.parametrize("fields", NEW_FORMATS[::2], ids=lambda fields: next(iter(fields)))
async def test_listing_without_any_readable_record_fails_every_command(
    program_environment: Environment, fields: dict[str, Any]
) -> None:
    async with mirrored(program_environment, skills=3) as (server, watched, start):
        assert (await start.run("runsync", "--once")).status == 0
        before = await watched.ask(freshness)
        spoil(server, fields=fields)
        programs = [start.start("verifysync"), start.start("runsync", "--dry-run")]
        once = await start.run("runsync", "--once")
        assert once.status == 1 and once.out == ""
        (reason,) = [line for line in once.err.splitlines() if line.startswith("runsync: ")]
        assert reason.startswith(
            "runsync: the full sync failed: none of the 3 listed skills can be read. The first one: "
        )
        assert f": {next(iter(fields))}" in reason
        verify, dry_run = [await program.ended() for program in programs]
        assert (verify.status, dry_run.status, verify.out, dry_run.out) == (2, 1, "", "")
        assert "none of the 3 listed skills can be read" in verify.err
        repair = await start.run("verifysync", "--repair")
        assert (repair.status, repair.out) == (2, "")
        assert await watched.ask(Skill.objects.count) == 3, "what cannot be read is listed all the same"
        run = await watched.ask(SyncRun.objects.filter(reason="once").latest, "pk")
        assert (run.state, run.refused, run.is_clean) == ("failed", 3, None)
        assert (await watched.ask(freshness)).as_of == before.as_of
        assert await records_check(watched) == ("unhealthy", {"refused": 3, "share": 1.0})


async def test_refused_record_makes_the_sync_degraded_and_verifysync_fail(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment, skills=30) as (server, watched, start):
        assert (await start.run("runsync", "--once")).status == 0
        before = await watched.ask(freshness)
        spoil(server, 7)
        once = await start.run("runsync", "--once")
        run = await watched.ask(SyncRun.objects.latest, "pk")
        assert once.status == 0
        assert once.out.splitlines()[-1] == (
            f"Degraded (run {run.pk}): 1 of the listed records could not be stored. See the dead letters."
        )
        assert (run.state, run.is_clean, run.refused) == ("degraded", True, 1)
        assert (await watched.ask(freshness)).as_of == before.as_of, "As-Of stands still"

        for arguments in ((), ("--repair",)):
            verified = await start.run("verifysync", "--json", *arguments)
            found = json.loads(verified.out)
            assert (verified.status, found["level"], found["missing"], found["different"]) == (1, False, [], {})
            (refused,) = found["refused"]
            assert refused.startswith("skill-00007: average_rating: ")
        shown = await start.run("runsync", "--dry-run")
        assert shown.status == 0 and shown.out.splitlines()[0].startswith("unreadable skill-00007: average_rating: ")

        server.market.put_skill(skill(7, updated_at="2026-03-01T00:00:00Z"), announce=False, stamp=False)
        assert (await start.run("runsync", "--once")).status == 0
        assert (await start.run("verifysync")).status == 0
        repaired = (await watched.ask(freshness)).as_of
        assert before.as_of is not None and repaired is not None and repaired > before.as_of


async def test_listing_with_unreadable_pages_fails_runsync_once(program_environment: Environment) -> None:
    async with mirrored(program_environment, skills=30, ATOM_SAAS_PAGE_SIZE=10) as (server, watched, start):
        assert (await start.run("runsync", "--once")).status == 0
        before = await watched.ask(freshness)
        server.faults.add("partial-listing")
        once = await start.run("runsync", "--once")
        assert once.status == 1
        assert once.err.splitlines()[-1] == (
            "runsync: part of the listing could not be read: page 2 of 3 came empty. What was read is applied."
        )
        assert (await start.run("verifysync")).status == 2
        assert (await watched.ask(freshness)).as_of == before.as_of
    async with live(30, page_size=10) as (server, running):
        server.faults.add("partial-listing")
        await sync(running)
        await running.until_db(lambda: not WebSocketState.objects.get().complete, "As-Of stands still")
        server.faults.clear()
        await sync(running)
        await running.until_db(lambda: WebSocketState.objects.get().complete, "As-Of moves again")
