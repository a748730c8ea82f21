"""`manage.py runsync` and `verifysync` as programs: their effects, output and exit status."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.models import Category, LeaseRow, Skill, SyncRun, Tombstone
from marketplace_sync.tests.support.harness import CATEGORY, Mirror, marketplace, mirror, skill
from marketplace_sync.tests.support.processes import Environment, mirrored, programs, settings_for

pytestmark = pytest.mark.django_db(transaction=True)


def everything_stored() -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table."""
    return {model._meta.label: list(model._base_manager.order_by("pk").values()) for model in apps.get_models()}


async def test_once_fills_the_mirror_and_dry_run_shows_the_next_sync_without_writing(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment, skills=25, ATOM_SAAS_PAGE_SIZE=10) as (server, watched, start):
        filled = await start.run("runsync", "--once")
        assert filled.status == 0
        assert filled.out == "25 skills listed: 25 created, 0 updated, 0 removed, 0 unchanged, 0 refused.\n"
        assert not server.connects
        assert (await watched.difference()).in_sync

        server.market.put_skill(skill(100), announce=False)
        server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"}, announce=False)
        server.market.delete_skill("skill-00002", announce=False)
        before = await watched.ask(everything_stored)
        foreseen = await start.run("runsync", "--dry-run")
        assert await watched.ask(everything_stored) == before
        assert (foreseen.status, foreseen.out.splitlines()) == (0, [
            "create skill-00100", "update skill-00001", "delete skill-00002",
            "Would create 1, update 1, delete 1 skills; 23 unchanged. Nothing was written.",
        ])  # fmt: skip

        # So many removals need approval, which is no failure of the sync.
        for number in range(3, 25):
            server.market.delete_skill(f"skill-{number:05}", announce=False)
        second = await start.run("runsync", "--once")
        assert second.status == 0
        run = await watched.ask(SyncRun.objects.get, state="held")
        assert second.out.splitlines() == [
            "3 skills listed: 1 created, 1 updated, 0 removed, 1 unchanged, 0 refused.",
            f"23 removals wait for approval (run {run.pk}): {run.held_reason}.",
        ]

        server.faults.add("unauthorized")
        failed = await start.run("runsync", "--once")
        assert (failed.status, failed.out) == (1, "")
        assert failed.err.splitlines()[-1] == (
            "runsync: the full sync failed: the marketplace refuses the token (HTTP 401)"
        )


async def test_no_websocket_polls(program_environment: Environment) -> None:
    async with mirrored(program_environment, ATOM_SAAS_SYNC_INTERVAL_MINUTES=0.005) as (server, watched, start):
        daemon = start.start("runsync", "--no-websocket")
        await daemon.prints("state state=polling")
        server.market.put_skill(skill(100))
        await watched.until_db(Skill.objects.filter(skill_id="skill-00100").exists, "a poll brought it")
        assert (await watched.status()).row.state == "polling"
        assert not server.connects
        daemon.send(signal.SIGTERM)
        assert (await daemon.ended()).status == 0


async def test_invalid_settings_are_one_line_each_and_change_nothing(
    program_environment: Environment, tmp_path: Path
) -> None:
    nowhere = tmp_path / "none.sqlite3"
    faulty = {
        "ATOM_SAAS_API_URL": "ftp://market", "ATOM_SAAS_PAGE_SIZE": "many", "LOG_FORMAT": "poems",
        "ATOM_SAAS_WS_RECONNECT_DELAYS": "1,-1", "DATABASE_URL": f"sqlite:///{nowhere}",
    }  # fmt: skip
    with programs(program_environment(**faulty)) as start:
        both = [start.start("runsync"), start.start("verifysync"), start.start("runsync", DATABASE_URL="oracle://x/y")]
        runsync, verifysync, strange = [await program.ended() for program in both]
        assert (runsync.status, verifysync.status, strange.status) == (1, 2, 1)
        assert runsync.out == "" and runsync.err == verifysync.err
        named = [line.split()[0] for line in runsync.err.splitlines()]
        assert sorted(named) == sorted([*(name for name in faulty if name != "DATABASE_URL"), "ATOM_SAAS_API_TOKEN"])
        assert strange.err.startswith("DATABASE_URL must start with sqlite:/// or postgres://. For example: ")
        assert "Traceback" not in strange.err
    assert not nowhere.exists()


async def test_disabled_makes_no_connection_and_unmigrated_database_is_reported(
    program_environment: Environment, tmp_path: Path
) -> None:
    async with marketplace() as server:
        fresh = f"sqlite:///{tmp_path / 'fresh.sqlite3'}"
        with programs(program_environment(**settings_for(server))) as start:
            disabled = start.start("runsync", ATOM_SAAS_ENABLED="false")
            unmigrated = start.start("runsync", DATABASE_URL=fresh)
            unverified = start.start("verifysync", DATABASE_URL=fresh)
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                away = f"postgres://nobody@127.0.0.1:{unused.getsockname()[1]}/none"
                absent = await start.run("runsync", DATABASE_URL=away)
            ended = await disabled.ended()
            assert (ended.status, ended.err) == (0, "")
            assert ended.out.startswith("ATOM_SAAS_ENABLED is false: no connection is made")
            for program, status in ((unmigrated, 1), (unverified, 2)):
                ended = await program.ended()
                assert (ended.status, ended.out) == (status, "")
                (line,) = ended.err.splitlines()
                assert line.endswith(" migration(s) are not applied to the database. Run: python manage.py migrate")
            assert absent.status == 1
            (line,) = absent.err.splitlines()
            assert line.startswith("The database does not answer: ")
            assert server.accepted == 0


async def test_commands_report_an_unusable_database_in_one_line(
    program_environment: Environment, tmp_path: Path
) -> None:
    commands = (
        ("restartfeed",),
        ("createagent", "night-watch", "--maturity", "INTERN"),
        ("archiveaudit", "--to", str(tmp_path / "audit.jsonl.gz")),
    )
    with programs(program_environment()) as start, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        troubles = {
            f"sqlite:///{tmp_path / 'fresh.sqlite3'}": "migrations are not applied: run manage.py migrate",
            f"postgres://nobody@127.0.0.1:{unused.getsockname()[1]}/none": "the database does not answer: ",
            "mysql://nobody@127.0.0.1/none": "DATABASE_URL must start with ",
        }
        for url, trouble in troubles.items():
            started = [start.start(*command, DATABASE_URL=url) for command in commands]
            for program in started:
                ended = await program.ended()
                assert (ended.status, ended.out) == (1, ""), program.name
                (line,) = ended.err.splitlines()
                assert trouble in line
    assert not (tmp_path / "audit.jsonl.gz").exists()


async def test_verifysync_shows_differences_and_repairs_them_with_removals(
    program_environment: Environment,
) -> None:
    async with marketplace(skills=40) as server, mirror(server, start=False) as watched:
        market = server.market
        with programs(program_environment(**settings_for(server))) as start:
            assert (await start.run("runsync", "--once")).status == 0
            # Deleted, and back with an older date: the newest time wins over the listing, but not over a repair.
            market.delete_skill("skill-00039", announce=False)
            assert (await start.run("runsync", "--once")).status == 0
            assert await watched.ask(Tombstone.objects.filter(skill_id="skill-00039").exists)
            market.put_skill(skill(39, updated_at="2025-01-01T00:00:00Z"), announce=False, stamp=False)
            # Older than what the mirror has, and still what the marketplace reports.
            market.put_skill({"skill_id": "skill-00001", "name": "Old", "updated_at": "2025-01-01T00:00:00Z"},
                             announce=False, stamp=False)  # fmt: skip
            for number in range(10, 36):
                market.delete_skill(f"skill-{number:05}", announce=False)
            market.skills["skill-00005"]["rating_count"] = "many"
            market.put_category({**CATEGORY, "name": "new"}, announce=False)

            rows = await watched.ask(everything_stored)
            checked = await start.run("verifysync", "--json")
            assert checked.status == 1
            assert json.loads(checked.out) == {
                "level": False,
                "missing": ["skill-00039"],
                "extra": [f"skill-{number:05}" for number in range(10, 36)],
                "different": {"skill-00001": ["name", "remote_updated_at"]},
                "withheld": 0,
                "later": [],
                "misfiled": [],
                "categories": {"missing": ["new"], "extra": [], "different": {}, "later": []},
                "refused": ["skill-00005: rating_count: not a number: 'many' (bad_type)"],
            }
            assert await watched.ask(everything_stored) == rows

            # Only the unreadable record is left: the mirror does not have it.
            repaired = await start.run("verifysync", "--repair")
            assert repaired.status == 1
            assert repaired.out.splitlines() == [
                "1 listed, but not readable: their content is not in the mirror:",
                "  skill-00005: rating_count: not a number: 'many' (bad_type)",
                "Not in sync with the marketplace.",
            ]
            assert await watched.ask(Skill.objects.count) == len(market.skills)
            assert (await watched.ask(Skill.objects.get, skill_id="skill-00001")).name == "Old"
            assert await watched.ask(Category.objects.filter(name="new").exists)
            left = await watched.difference()
            assert (left.skills, left.categories, len(left.refused)) == (set(), set(), 1)

            # The next regular sync does not undo the repair.
            again = await start.run("runsync", "--once")
            assert again.out.splitlines()[0] == (
                "14 skills listed: 0 created, 0 updated, 0 removed, 13 unchanged, 1 refused."
            )


async def renewed_again_and_again(watched: Mirror, lease: Lease) -> None:
    """Renew the lease as its owner does."""
    while True:
        await watched.ask(lease.renew)
        await asyncio.sleep(0.5)


async def test_verifysync_looks_twice_and_reports_what_it_cannot_read_or_write(
    program_environment: Environment,
) -> None:
    async with mirrored(program_environment) as (server, watched, start):
        assert (await start.run("runsync", "--once")).status == 0

        # The marketplace changes during the comparison: what seemed missing is gone at the second look.
        async def passing(target: str) -> None:
            if "page=1&" in target:
                server.market.put_skill(skill(100), announce=False)
            elif target.endswith("skill-00100"):
                server.market.delete_skill("skill-00100", announce=False)

        server.on_request = passing
        level = await start.run("verifysync")
        assert (level.status, level.out) == (0, "In sync with the marketplace.\n")
        assert any(path.endswith("/skill-00100") for _, path, _ in server.requests)
        server.on_request = None

        lease = await watched.ask(acquire, "elsewhere:4711")
        before = await watched.ask(everything_stored)
        renewing = asyncio.create_task(renewed_again_and_again(watched, lease))
        both = [start.start("verifysync", "--repair"), start.start("runsync", "--once")]
        for program in both:
            ended = await program.ended()
            assert (ended.status, ended.out) == (1, "")
            assert f"{program.name.split()[0]}: the mirror is being written by elsewhere:4711" in ended.err
        renewing.cancel()
        (row,) = before[LeaseRow._meta.label]
        await watched.ask(LeaseRow.objects.update, renewed_at=row["renewed_at"])
        assert await watched.ask(everything_stored) == before
        # A comparison needs no lease.
        server.faults.add("html-200")
        unread = start.start("verifysync", "--json")
        await server.hang_up()
        away = await start.run("verifysync")
        for ended in (await unread.ended(), away):
            assert (ended.status, ended.out) == (2, "")
            assert "verifysync: the marketplace cannot be read: " in ended.err
        await watched.ask(lease.release)
