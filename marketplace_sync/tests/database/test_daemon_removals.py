"""Law 5: people approve or dismiss the held removals of a run, also after newer runs."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from marketplace_sync.daemon import command_desk
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.session import writing_session
from marketplace_sync.mirror.commands import submit_command
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import Command, DismissedRemoval, HeldRemoval, Skill, SyncRun
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror, skill
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.market import MarketClient

pytestmark = pytest.mark.django_db(transaction=True)

APPROVE, DISMISS, SYNC = Command.Action.APPROVE, Command.Action.DISMISS, Command.Action.SYNC


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


@asynccontextmanager
async def live(skills: int = 100) -> AsyncIterator[tuple[SimulatorServer, Mirror]]:
    async with marketplace(skills=skills) as server, mirror(server) as running:
        await running.until_state("live")
        yield server, running


def ids(numbers: Iterable[int]) -> set[str]:
    return {f"skill-{number:05}" for number in numbers}


def withdraw(server: SimulatorServer, numbers: Iterable[int]) -> None:
    """Delete skills at the marketplace without a stream message."""
    for skill_id in ids(numbers):
        server.market.delete_skill(skill_id, announce=False)


async def sync(running: Mirror) -> SyncRun:
    answer = await running.command(SYNC)
    assert answer.state == "done", answer.result
    return await running.ask(SyncRun.objects.get, pk=answer.result["run"])


async def served(running: Mirror) -> set[str]:
    return await running.ask(lambda: set(Skill.objects.values_list("skill_id", flat=True)))


async def dismissed(running: Mirror) -> set[str]:
    return await running.ask(lambda: set(DismissedRemoval.objects.values_list("skill_id", flat=True)))


async def waiting_removals(running: Mirror, run: SyncRun) -> set[str]:
    return await running.ask(lambda: set(HeldRemoval.objects.filter(run=run).values_list("skill_id", flat=True)))


async def state_of(running: Mirror, run: SyncRun) -> str:
    await running.ask(run.refresh_from_db)
    return run.state


async def test_approved_superseded_run_deletes_only_its_own_removals() -> None:
    async with live() as (server, running):
        withdraw(server, range(25))
        first = await sync(running)
        withdraw(server, range(25, 55))
        second = await sync(running)
        assert (await state_of(running, first), second.held_count) == ("superseded", 55)
        server.market.put_skill(skill(0), announce=False)
        answer = await running.command(APPROVE, run=first.pk)
        assert (answer.state, answer.result["removed"]) == ("done", 24)
        assert await served(running) == ids([0, *range(25, 100)])
        assert await state_of(running, first) == "approved"
        # The thirty others still wait, in a run of their own.
        newest = await running.ask(SyncRun.objects.get, state="held")
        assert await waiting_removals(running, newest) == ids(range(25, 55))


async def test_superseded_run_without_waiting_removals_cannot_be_approved() -> None:
    async with live() as (server, running):
        withdraw(server, range(25))
        first = await sync(running)
        for number in range(25):
            server.market.put_skill(skill(number), announce=False)
        await sync(running)
        refused = await running.command(APPROVE, run=first.pk)
        assert refused.state == "failed"
        assert "no newer one has its removals on hold" in refused.result["detail"]
        assert len(await served(running)) == 100


async def test_run_is_approved_only_once() -> None:
    async with live() as (server, running):
        withdraw(server, range(25))
        run = await sync(running)
        assert (await running.command(APPROVE, run=run.pk)).state == "done"
        again = await running.command(APPROVE, run=run.pk)
        assert (again.state, "approved already" in again.result["detail"]) == ("failed", True)


async def test_approval_deletes_nothing_if_all_skills_are_listed_again() -> None:
    async with live() as (server, running):
        withdraw(server, range(25))
        run = await sync(running)
        for number in range(25):
            server.market.put_skill(skill(number), announce=False)
        answer = await running.command(APPROVE, run=run.pk)
        assert (answer.state, answer.result["removed"]) == ("done", 0)
        assert len(await served(running)) == 100


async def test_failed_approval_names_its_sync_run() -> None:
    async with live() as (server, running):
        withdraw(server, range(25))
        run = await sync(running)
        server.faults.add("http-500")
        answer = await running.command(APPROVE, run=run.pk)
        assert answer.state == "failed"
        assert (await running.ask(SyncRun.objects.get, pk=answer.result["run"])).state == "failed"


async def test_dismissed_skills_stay_and_do_not_count_as_absent() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        run = await sync(running)
        answer = await running.command(DISMISS, run=run.pk)
        assert (answer.state, answer.result["kept"]) == ("done", 30)
        assert await state_of(running, run) == "dismissed"
        # Five more are judged separately: too few to be put on hold, and a 404 proves each.
        withdraw(server, range(30, 35))
        before = len([one for one in server.requests if "/skills/skill-" in one[1]])
        after = await sync(running)
        assert (after.state, after.removed, after.held_count) == ("done", 5, 0)
        assert await served(running) == ids([*range(30), *range(35, 100)])
        assert len([one for one in server.requests if "/skills/skill-" in one[1]]) - before == 5
        # So are twenty-five more, which are put on hold without the dismissed ones.
        withdraw(server, range(35, 60))
        held_run = await sync(running)
        assert await waiting_removals(running, held_run) == ids(range(35, 60))
        assert (await running.difference()).extra == ids([*range(30), *range(35, 60)])


async def test_dismissal_ends_when_the_skill_is_listed_again() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        await running.command(DISMISS, run=(await sync(running)).pk)
        for number in range(28):
            server.market.put_skill(skill(number), announce=False)
        await sync(running)
        assert await dismissed(running) == ids((28, 29))
        withdraw(server, range(3))
        run = await sync(running)
        assert (run.state, run.removed) == ("done", 3)
        assert await served(running) == ids(range(3, 100))


async def test_dismissed_removals_can_be_approved_later() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        run = await sync(running)
        await running.command(DISMISS, run=run.pk)
        await sync(running)
        answer = await running.command(APPROVE, run=run.pk)
        assert (answer.state, answer.result["removed"]) == ("done", 30)
        assert (await state_of(running, run), await dismissed(running)) == ("approved", set())
        assert await served(running) == ids(range(30, 100))


async def test_dismissing_a_superseded_run_settles_a_newer_run_with_the_same_removals() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        first, second = await sync(running), await sync(running)
        assert await state_of(running, first) == "superseded"
        assert (await running.command(DISMISS, run=first.pk)).state == "done"
        assert [await state_of(running, run) for run in (first, second)] == ["dismissed", "dismissed"]
        assert (await sync(running)).state == "done"


async def test_removal_dismissed_during_a_run_does_not_wait_for_approval() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        run = await sync(running)
        server.faults.add("slow-body", times=1, match="/api/v1/skills?", seconds=0.5)
        await running.ask(Command.objects.all().delete)
        later = await running.ask(lambda: submit_command(SYNC, by="command line"))
        await running.until_db(SyncRun.objects.filter(state="running").exists, "the sync has begun")
        assert (await running.command(DISMISS, run=run.pk)).state == "done"
        await running.until_db(lambda: Command.objects.get(pk=later.pk).state == "done", "the sync has ended")
        newest = await running.ask(SyncRun.objects.order_by("-id").first)
        assert newest is not None and (newest.state, newest.held_count, newest.held_reason) == ("done", 0, "")


async def test_dismissal_fails_while_another_run_with_the_skill_is_approved() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        first, second = await sync(running), await sync(running)
        server.faults.add("slow-body", times=1, match="/api/v1/skills?", seconds=0.5)
        await running.ask(Command.objects.all().delete)
        approval = await running.ask(lambda: submit_command(APPROVE, by="command line", args={"run": second.pk}))
        await running.until_db(SyncRun.objects.filter(state="running").exists, "the approval's sync has begun")
        answer = await running.command(DISMISS, run=first.pk)
        assert (answer.state, "being approved" in answer.result["detail"]) == ("failed", True)
        await running.until_db(lambda: Command.objects.get(pk=approval.pk).state == "done", "the approval has ended")
        assert await served(running) == ids(range(30, 100))
        assert await dismissed(running) == set()


async def test_announced_removal_is_applied_although_dismissed() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        await running.command(DISMISS, run=(await sync(running)).pk)
        server.market.put_skill(skill(0), announce=False)
        server.market.delete_skill("skill-00000")
        await running.until_db(lambda: not Skill.objects.filter(skill_id="skill-00000").exists(), "it is removed")
        await sync(running)
        assert await dismissed(running) == ids(range(1, 30))


async def test_empty_listing_with_dismissed_removals_is_not_put_on_hold() -> None:
    async with live(30) as (server, running):
        server.faults.add("empty-listing")
        run = await sync(running)
        assert (run.state, run.held_count) == ("held", 30)
        await running.command(DISMISS, run=run.pk)
        assert (await sync(running)).state == "done"
        assert len(await served(running)) == 30
        server.faults.clear()
        await sync(running)
        assert await dismissed(running) == set()


async def test_repair_removes_dismissed_skills() -> None:
    async with live() as (server, running):
        withdraw(server, range(30))
        await running.command(DISMISS, run=(await sync(running)).pk)
        await running.end()
        await _repair(running)
        assert await served(running) == ids(range(30, 100))
        assert await dismissed(running) == set()


async def _repair(running: Mirror) -> None:
    lease = await running.ask(acquire, "repair:1")
    async with (
        MarketClient(running.config, Access(running.config)) as market,
        writing_session(running.database, lease, running.config) as session,
    ):
        runner = SyncRunner(market, session, SyncOptions(page_size=100, max_pages=100, repair=True))
        assert (await runner.run("repair")).clean
