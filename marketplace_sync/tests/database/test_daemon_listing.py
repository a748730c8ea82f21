"""Laws 2 to 7 over real sockets: full syncs, single fetches, and a marketplace that misbehaves."""

import asyncio
import gc
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon import command_desk
from marketplace_sync.daemon.database import Database
from marketplace_sync.daemon.full_sync import SyncOptions, SyncRunner
from marketplace_sync.daemon.session import Session, writing_session
from marketplace_sync.daemon.write_queue import MAX_BATCH_ITEMS, WriteQueue
from marketplace_sync.daemon.writer import Writer
from marketplace_sync.engine import schedule
from marketplace_sync.mirror.arrived import Arrived, Effect, Item, RefusedInput
from marketplace_sync.mirror.isolate import PlannedBatch
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.state import state_row
from marketplace_sync.models import Category, Command, DeadLetter, FeedChange, Skill, SyncRun, Tombstone
from marketplace_sync.protocol.events import SkillDeleted, SkillRecord
from marketplace_sync.protocol.stamps import stamp_of
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import PATIENCE, Mirror, marketplace, mirror, quick_config, skill
from marketplace_sync.tests.support.outages import locked_database
from marketplace_sync.upstream import market as upstream_market
from marketplace_sync.upstream.market import MarketClient

pytestmark = pytest.mark.django_db(transaction=True)

SKILLS = "/api/v1/skills?"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits that are not settings: between retries, after a loss, between looks for commands."""
    monkeypatch.setattr(upstream_market, "RETRY_DELAYS", (0.01, 0.02, 0.04))
    monkeypatch.setattr(schedule, "RETRY_DELAYS", (0.1,))
    monkeypatch.setattr(schedule, "GAP_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


@asynccontextmanager
async def live(skills: int = 25, **changes: Any) -> AsyncIterator[tuple[SimulatorServer, Mirror]]:
    """Yield a marketplace and its mirror, full and live."""
    async with marketplace(skills=skills) as server, mirror(server, **changes) as running:
        await running.until_state("live")
        assert await running.ask(Skill.objects.count) == skills
        yield server, running


async def sync(running: Mirror) -> SyncRun:
    """Command a full sync. Return its run once it has ended."""
    answer = await running.command(Command.Action.SYNC)
    assert answer.state == "done", answer.result
    return await running.ask(SyncRun.objects.get, pk=answer.result["run"])


async def runs(running: Mirror) -> list[tuple[str, str]]:
    """Return the reason and the state of every full sync so far, the oldest first."""
    return await running.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", "state")))


async def stored_ids(running: Mirror) -> set[str]:
    return await running.ask(lambda: set(Skill.objects.values_list("skill_id", flat=True)))


async def name_of(running: Mirror, skill_id: str) -> str:
    return (await running.ask(Skill.objects.get, skill_id=skill_id)).name


async def a_while(server: SimulatorServer) -> None:
    """Wait for two heartbeats: long enough for what must not happen (a gap is due after 0.1 s)."""
    so_far = server.heard["ping"]
    await server.until(lambda: server.heard["ping"] >= so_far + 2, timeout=PATIENCE)


@asynccontextmanager
async def syncs(
    database: Database, *, skills: int, page_size: int = 100
) -> AsyncIterator[tuple[SimulatorServer, Session, SyncRunner]]:
    """Yield a runner of full syncs over so many skills, into a mirror that is written through `database`."""
    try:
        async with marketplace(skills=skills) as server, MarketClient(quick_config(server)) as market:
            lease = await database.control(acquire, "test:1")
            async with writing_session(database, lease, SyncConfig()) as session:
                runner = SyncRunner(market, session, SyncOptions(page_size=page_size, max_pages=10))
                yield server, session, runner
    finally:
        await database.close()


def singles(server: SimulatorServer) -> list[tuple[str, int]]:
    """Return the single fetches so far: skill and status."""
    path = "/api/v1/skills/"
    return [(target.removeprefix(path), status) for _, target, status in server.requests if target.startswith(path)]


class TestAbsenceIsProved:
    async def test_empty_listing_puts_all_removals_on_hold(self) -> None:
        async with live(30) as (server, running):
            server.faults.add("empty-listing")
            run = await sync(running)
            assert (run.state, run.held_count, run.removed, run.is_clean) == ("held", 30, 0, True)
            assert run.held_reason == "the listing is empty, and the mirror has 30 skills"
            assert await running.ask(Skill.objects.count) == 30
            assert (await running.status()).row.state == "live"
            assert singles(server) == []

    async def test_shrunken_listing_puts_removals_on_hold(self) -> None:
        async with live(60, page_size=10) as (server, running):
            server.faults.add("shrunken-listing")
            run = await sync(running)
            assert (run.state, run.listed, run.held_count, run.removed) == ("held", 24, 36, 0)
            assert await running.ask(Skill.objects.count) == 60

    async def test_partial_listing_removes_nothing(self) -> None:
        async with live(60, page_size=10) as (server, running):
            server.faults.add("partial-listing")
            run = await sync(running)
            assert (run.state, run.is_clean, run.removed, run.held_count) == ("done", False, 0, 0)
            assert "came empty" in run.unclean_reason
            assert {status for _, status in singles(server)} == {200}
            assert await running.ask(Skill.objects.count) == 60

    async def test_partial_listing_removes_skills_proved_gone_by_404(self) -> None:
        async with live(25, page_size=5) as (server, running):
            server.market.delete_skill("skill-00012", announce=False)
            server.faults.add("partial-listing")
            run = await sync(running)
            assert (run.is_clean, run.removed) == (False, 1)
            assert ("skill-00012", 404) in singles(server)
            assert await running.ask(Skill.objects.count) == 24

    async def test_approval_removes_skills_that_are_still_absent(self) -> None:
        async with live(60) as (server, running):
            for number in range(30):
                server.market.delete_skill(f"skill-{number:05}", announce=False)
            held_run = await sync(running)
            assert (held_run.state, held_run.held_count) == ("held", 30)
            for number in range(5):
                server.market.put_skill(skill(number), announce=False)
            answer = await running.command(Command.Action.APPROVE, run=held_run.pk)
            assert (answer.state, answer.result["removed"]) == ("done", 25)
            await running.ask(held_run.refresh_from_db)
            assert held_run.state == "approved"
            assert await stored_ids(running) == set(server.market.skills)

    async def test_approval_fails_after_an_unclean_sync_and_can_be_repeated(self) -> None:
        async with live(60, page_size=10) as (server, running):
            for number in range(30):
                server.market.delete_skill(f"skill-{number:05}", announce=False)
            held_run = await sync(running)
            server.faults.add("partial-listing")
            answer = await running.command(Command.Action.APPROVE, run=held_run.pk)
            assert answer.state == "failed"
            assert "came empty" in answer.result["detail"]
            server.faults.clear()
            answer = await running.command(Command.Action.APPROVE, run=held_run.pk)
            assert answer.state == "done"
            assert await stored_ids(running) == set(server.market.skills)

    async def test_newer_sync_run_supersedes_an_older_one(self) -> None:
        async with live(60) as (server, running):
            for number in range(25):
                server.market.delete_skill(f"skill-{number:05}", announce=False)
            first = await sync(running)
            for number in range(25, 28):
                server.market.delete_skill(f"skill-{number:05}", announce=False)
            second = await sync(running)
            await running.ask(first.refresh_from_db)
            assert (first.state, second.state, second.held_count) == ("superseded", "held", 28)
            assert await running.ask(Skill.objects.count) == 60

    async def test_clean_listing_with_all_skills_supersedes_the_held_run(self) -> None:
        async with live(30) as (server, running):
            server.faults.add("empty-listing")
            held_run = await sync(running)
            server.faults.clear()
            assert (await sync(running)).state == "done"
            await running.ask(held_run.refresh_from_db)
            assert held_run.state == "superseded"

    async def test_missed_delete_is_proved_by_a_404(self) -> None:
        async with live() as (server, running):
            server.market.delete_skill("skill-00001", announce=False)
            run = await sync(running)
            assert (run.state, run.removed, run.is_clean) == ("done", 1, True)
            assert singles(server) == [("skill-00001", 404)]
            assert await stored_ids(running) == set(server.market.skills)

    async def test_many_missed_deletes_are_proved_by_two_clean_syncs(self) -> None:
        async with live(300) as (server, running):
            for number in range(25):
                server.market.delete_skill(f"skill-{number:05}", announce=False)
            first = await sync(running)
            assert (first.state, first.removed) == ("done", 0)
            await running.until_db(lambda: Skill.objects.count() == 275, "the second sync has removed them")
            await running.until_db(lambda: not SyncRun.objects.filter(state="running").exists(), "it has ended")
            assert await runs(running) == [("start", "done"), ("asked", "done"), ("confirm", "done")]
            assert (await running.ask(SyncRun.objects.get, reason="confirm")).removed == 25
            assert singles(server) == []

    async def test_skill_reported_between_two_syncs_is_not_removed_by_the_second(self) -> None:
        database = Database()
        async with syncs(database, skills=300) as (server, session, runner):
            await runner.run("start")
            server.faults.add("shrunken-listing", share=0.92)  # the marketplace has them all
            assert (await runner.run("poll")).again
            heard = SkillRecord("skill-00000", {"name": "Heard of"}, {}, stamp_of(datetime.now(UTC)))
            await session.queue.submit([Arrived(heard, session.arrivals.next(), FeedChange.Source.STREAM)])
            second = await runner.run("confirm")
            assert (second.progress.removed, singles(server)) == (23, [("skill-00000", 200)])
            assert await database.control(Skill.objects.filter(skill_id="skill-00000").exists)

    async def test_skill_created_and_removed_in_one_batch_hides_no_absence(self) -> None:
        """Such a batch leaves as many skills as were listed, and no row in the feed."""
        soon = stamp_of(datetime.now(UTC) + timedelta(minutes=1))
        deleted = Arrived(SkillDeleted("new", soon), 2**40 + 9999, FeedChange.Source.STREAM)

        class Crossed(Database):
            """The stream's report of a removal is queued behind the row that lists the skill."""

            async def write(self, function: Callable[..., Any], items: Any, *more: Any) -> Any:  # type: ignore[override]
                if any(isinstance(item.event, SkillRecord) and item.event.skill_id == "new" for item in items):
                    items = [*items, deleted]
                return await super().write(function, items, *more)

        database = Crossed()
        async with syncs(database, skills=3) as (server, _, runner):
            await runner.run("start")
            server.market.delete_skill("skill-00001", announce=False)
            server.market.put_skill(skill(3, skill_id="new"), announce=False)
            report = await runner.run("poll")
            assert (report.progress.created, report.progress.removed) == (1, 1)
            assert singles(server) == [("skill-00001", 404)]
            left = await database.control(lambda: set(Skill.objects.values_list("skill_id", flat=True)))
            assert left == {"skill-00000", "skill-00002"}

    async def test_category_without_skills_is_removed_after_two_listings(self) -> None:
        async with live(3) as (server, running):
            server.market.put_category({"name": "unused"})
            await running.until_db(Category.objects.filter(name="unused").exists, "it has arrived")
            del server.market.categories["unused"], server.market.categories["automation"]
            server.market.put_category({"name": "other"}, announce=False)
            run = await sync(running)
            names = await running.ask(lambda: set(Category.objects.values_list("name", flat=True)))
            assert names == {"automation", "other"}  # skills name the first
            assert run.removed == 0  # of skills

    async def test_category_row_without_a_readable_name_removes_no_category(self) -> None:
        async with live(3) as (server, running):
            server.market.put_category({"name": "unused"})
            await running.until_db(Category.objects.filter(name="unused").exists, "it has arrived")
            server.market.categories["unused"] = {"name": ["no text"]}
            run = await sync(running)
            assert await running.ask(Category.objects.filter(name="unused").exists)
            assert (run.refused, run.listed) == (1, 3)
            assert await running.ask(DeadLetter.objects.filter(kind="category").count) == 1


class TestChangingMarketplace:
    @pytest.mark.parametrize("announce", [True, False])
    async def test_rows_that_move_between_pages_are_not_removed(self, announce: bool) -> None:
        async with live(30, page_size=5) as (server, running):
            mine = await stored_ids(running)
            server.faults.add("page-drift", announce=announce)
            for _ in range(3):
                await sync(running)
                assert mine <= await stored_ids(running)
            await running.until_in_sync()

    async def test_stale_page_changes_nothing_and_revives_no_skill(self) -> None:
        async with live() as (server, running):
            server.faults.add("stale-page")
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
            server.market.delete_skill("skill-00002")
            await running.until_db(lambda: state_row().applied == 2, "both are applied")
            run = await sync(running)
            assert (run.stale, run.created, run.updated) == (2, 0, 0)
            assert await name_of(running, "skill-00001") == "Renamed"
            assert "skill-00002" not in await stored_ids(running)
            assert (await running.difference()).in_sync

    async def test_stream_message_wins_over_a_page_requested_before_it(self) -> None:
        async with live() as (server, running):
            server.faults.add("slow-body", times=1, match=SKILLS, seconds=0.5)
            before = len(server.requests)
            asked = asyncio.create_task(sync(running))
            await server.until(
                lambda: any(target.startswith(SKILLS) for _, target, _ in server.requests[before:]), timeout=PATIENCE
            )
            # The page was rendered before these changes, and is on its way.
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
            server.market.delete_skill("skill-00002")
            server.market.rate("skill-00003", 1)
            server.market.put_skill(skill(100))
            await running.until_db(lambda: state_row().applied == 4, "the stream's word is applied")
            assert not asked.done()
            await asked
            assert (await running.difference()).in_sync
            assert await runs(running) == [("start", "done"), ("asked", "done")]

    async def test_duplicate_and_reordered_messages_end_in_sync(self) -> None:
        async with live() as (server, running):
            server.faults.add("duplicate")
            server.faults.add("reorder", linger=0.02)
            for number in range(25):
                key = f"skill-{number:05}"
                server.market.put_skill({"skill_id": key, "name": f"First {number}"})
                server.market.put_skill({"skill_id": key, "name": f"Second {number}", "code": "x = 2"})
                if number % 3 == 0:
                    server.market.delete_skill(key)
                if number % 6 == 0:
                    server.market.put_skill(skill(number, name="Back again"))
            await running.until_in_sync()
            assert await runs(running) == [("start", "done")]

    @pytest.mark.parametrize("hours", [-1, 1, 48])
    async def test_marketplace_with_a_wrong_clock_is_mirrored(self, hours: int) -> None:
        async with marketplace() as server:
            server.clock_skew = timedelta(hours=hours)
            async with mirror(server) as running:
                await running.until_state("live")
                put = server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
                server.market.delete_skill("skill-00002")
                await running.until_in_sync()
                held_run = await running.ask(Skill.objects.get, skill_id="skill-00001")
                # The marketplace's times count, although our clock is days behind.
                assert held_run.remote_updated_at == datetime.fromisoformat(put["updated_at"])
                server.clock_skew = timedelta(0)
                server.market.put_skill(skill(200))
                await running.until_in_sync()

    async def test_time_far_ahead_does_not_freeze_a_skill(self) -> None:
        async with live() as (server, running):
            frozen = {"skill_id": "skill-00001", "name": "From the future", "updated_at": "9999-12-31T23:59:59Z"}
            server.send_raw(json.dumps({"type": "skill_update", "data": frozen}))
            await running.until_db(Skill.objects.filter(name="From the future").exists, "it is applied")
            server.market.put_skill({"skill_id": "skill-00001", "name": "Now"})
            await running.until_db(Skill.objects.filter(name="Now").exists, "later news is applied")
            ahead = {"type": "skill_delete", "data": {"skill_id": "skill-00002", "deleted_at": "9999-12-31T23:59:59Z"}}
            server.send_raw(json.dumps(ahead))
            await running.until_db(Tombstone.objects.filter(skill_id="skill-00002").exists, "it is removed")
            # The marketplace still has it, and lists it.
            await sync(running)
            assert "skill-00002" in await stored_ids(running)


class TestUnchangedRows:
    async def test_full_sync_writes_only_rows_that_differ(self) -> None:
        async with syncs(Database(), skills=30, page_size=10) as (server, session, runner):
            await runner.run("poll")
            assert (await runner.run("poll")).progress.unchanged == 30
            lost, changed, kept = list(server.market.skills)[:3]
            await session.database.control(Skill.objects.filter(skill_id=lost).delete)
            server.market.put_skill({**server.market.skills[changed], "version": "9.9.9"})
            done = (await runner.run("poll")).progress
            assert (done.created, done.updated, done.unchanged) == (1, 1, 28)
            mirrored = await session.database.control(lambda: {skill.skill_id: skill for skill in Skill.objects.all()})
            assert len(mirrored) == 30
            assert mirrored[lost].code == server.market.skills[lost]["code"]
            assert mirrored[changed].version == "9.9.9"
            assert mirrored[kept].version == server.market.skills[kept]["version"]

    async def test_lagging_listing_does_not_undo_stream_changes(self) -> None:
        async with syncs(Database(), skills=10) as (server, session, runner):
            await runner.run("poll")
            changed = next(iter(server.market.skills))
            newer = SkillRecord(changed, {"version": "9.9.9"}, {}, stamp_of(server.market.now() + timedelta(seconds=1)))
            session.queue.offer(Arrived(newer, session.arrivals.next(), FeedChange.Source.STREAM, size=1))
            done = (await runner.run("poll")).progress
            assert (done.stale, done.unchanged) == (1, 9)
            assert (await session.database.control(lambda: Skill.objects.get(skill_id=changed).version)) == "9.9.9"


class TestServersVary:
    @pytest.mark.parametrize("faults", [["bare-list"], ["no-totals"], ["aliases"], ["bare-list", "aliases"]])
    async def test_mirror_fills_from_other_listing_formats(self, faults: list[str]) -> None:
        async with marketplace(skills=25) as server:
            for fault in faults:
                server.faults.add(fault)
            async with mirror(server, page_size=10) as running:
                await running.until_state("live")
                server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
                await running.until_db(Skill.objects.filter(name="Renamed").exists, "the stream is read")
                assert (await running.ask(SyncRun.objects.get)).is_clean is True
                assert await running.ask(Skill.objects.count) == 25
                assert (await running.difference()).in_sync

    async def test_catalogue_on_one_page_is_written_in_batches(self) -> None:
        class Watched(Database):
            def __init__(self) -> None:
                super().__init__()
                self.sizes: list[int] = []

            async def write(self, function: Callable[..., Any], batch: PlannedBatch, *more: Any) -> Any:  # type: ignore[override]
                self.sizes.append(len(batch.items))
                return await super().write(function, batch, *more)

        skills = 2 * MAX_BATCH_ITEMS + 400
        database = Watched()
        try:
            lease = await database.control(acquire, "test:1")
            queue = WriteQueue(max_bytes=1)
            writer = Writer(queue, database, lease, committed=lambda _: None, clock=lambda: 0.0)
            writing = asyncio.create_task(writer.run())
            rows: list[Item] = [
                Arrived(
                    SkillRecord(f"s{number % skills}", {"name": "Skill"}, {}, None), number,
                    FeedChange.Source.LISTING, polled=True,
                )
                for number in range(skills + 100)
            ]  # fmt: skip
            effects = await queue.submit(rows)
            queue.close()
            await writing
            assert effects == [Effect.CREATED] * skills + [Effect.UNCHANGED] * 100
            half = MAX_BATCH_ITEMS // 2  # until a batch is known to take no longer than allowed
            assert database.sizes == [half, half, MAX_BATCH_ITEMS, 500]
        finally:
            await database.close()


class TestRefusals:
    async def test_page_of_refused_rows_does_not_block_the_event_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page may have 100,000 rows, whose dead letters take 0.7 s to make."""
        turns = 0
        made: Counter[int] = Counter()  # dead letters, by the turn of the event loop in which they were made

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def dead_letter_of(*how: Any) -> RefusedInput:
            made[turns] += 1
            return RefusedInput(*how, head=b"", size=0, digest=f"{made.total()}")  # type: ignore[misc]

        async with syncs(Database(), skills=2000, page_size=1000) as (server, _, runner):
            for row in server.market.skills.values():
                row["rating_count"] = -1
            monkeypatch.setattr(RefusedInput, "of", lambda refusal, raw, source: dead_letter_of(refusal, source))
            working = asyncio.create_task(others())
            report = await runner.run("start")
            working.cancel()
            assert (report.progress.refused, made.total()) == (2000, 2000)
            assert max(made.values()) <= 500

    async def test_invalid_record_becomes_one_dead_letter(self) -> None:
        async with marketplace(skills=25) as server:
            server.market.skills["skill-00003"]["rating_count"] = -1
            async with mirror(server, page_size=10, heartbeat_interval=0.15) as running:
                await running.until_state("live")
                run = await running.ask(SyncRun.objects.get)
                assert (run.state, run.is_clean, run.created, run.refused) == ("degraded", True, 24, 1)
                dead_letter = await running.ask(DeadLetter.objects.get)
                assert (dead_letter.source, dead_letter.key, dead_letter.code, dead_letter.count) == (
                    "listing", "skill-00003", "out_of_range", 1,
                )  # fmt: skip
                assert json.loads(bytes(dead_letter.head))["skill_id"] == "skill-00003"
                await a_while(server)
                assert await runs(running) == [("start", "degraded")]
                await sync(running)
                await running.ask(dead_letter.refresh_from_db)
                assert dead_letter.count == 2

    async def test_skill_with_a_refused_row_is_not_removed(self) -> None:
        async with live() as (server, running):
            server.market.skills["skill-00003"]["tags"] = "no list"
            for _ in range(2):
                run = await sync(running)
                assert (run.is_clean, run.refused, run.removed, run.listed) == (True, 1, 0, 25)
            assert "skill-00003" in await stored_ids(running)
            assert singles(server) == []

    async def test_refused_row_without_id_makes_the_sync_unclean(self) -> None:
        async with live() as (server, running):
            server.market.skills["nobody"] = {"name": "No id"}
            del server.market.skills["skill-00003"]
            run = await sync(running)
            assert (run.is_clean, run.unclean_reason) == (False, "1 listed records had no readable id")
            assert (run.refused, run.removed) == (1, 1)  # removed because of a 404
            assert singles(server) == [("skill-00003", 404)]

    async def test_malformed_message_with_id_causes_one_fetch_and_no_sync(self) -> None:
        async with live(heartbeat_interval=0.15) as (server, running):
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"}, announce=False)
            server.send_raw('{"type": "skill_update", "data": {"skill_id": "skill-00001", "name": ["Renamed"]}}')
            await running.until_db(Skill.objects.filter(name="Renamed").exists, "the fetch has brought it")
            await a_while(server)
            assert singles(server) == [("skill-00001", 200)]
            assert await runs(running) == [("start", "done")]
            dead_letter = await running.ask(DeadLetter.objects.get)
            assert (dead_letter.source, dead_letter.key, dead_letter.code) == ("stream", "skill-00001", "bad_type")

    async def test_malformed_message_about_a_removed_skill_removes_it(self) -> None:
        async with live() as (server, running):
            server.market.delete_skill("skill-00001", announce=False)
            server.send_raw('{"type": "skill_update", "data": {"skill_id": "skill-00001", "name": 7}}')
            await running.until_db(lambda: Skill.objects.count() == 24, "a 404 proves it gone")
            assert await runs(running) == [("start", "done")]

    async def test_malformed_message_without_id_causes_one_sync(self) -> None:
        async with live(heartbeat_interval=0.15) as (server, running):
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"}, announce=False)
            server.send_raw("no JSON")
            await running.until_db(Skill.objects.filter(name="Renamed").exists, "the sync has brought it")
            await a_while(server)
            assert await runs(running) == [("start", "done"), ("gap", "done")]

    async def test_oversize_message_becomes_a_dead_letter_and_keeps_the_connection(self) -> None:
        async with live(heartbeat_interval=0.15) as (server, running):
            server.faults.add("oversize", times=1)
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
            await running.until_db(Skill.objects.filter(name="Renamed").exists, "the fetch has brought it")
            dead_letter = await running.ask(DeadLetter.objects.get)
            assert (dead_letter.code, dead_letter.key, len(dead_letter.head)) == ("too_large", "skill-00001", 4096)
            assert dead_letter.size > 3 * 2**19
            await a_while(server)
            assert len(server.connects) == 1
            assert await runs(running) == [("start", "done")]

    async def test_message_over_the_hard_limit_closes_the_stream_and_the_next_sync_brings_it(self) -> None:
        async with live() as (server, running):
            server.faults.add("oversize-hard", times=1)
            server.market.put_skill({"skill_id": "skill-00001", "name": "Renamed"})
            await running.until_db(Skill.objects.filter(name="Renamed").exists, "the sync has brought it")
            await running.until_state("live")
            assert len(server.connects) == 2
            assert await runs(running) == [("start", "done"), ("connected", "done")]

    async def test_rating_of_an_unknown_skill_fetches_it(self) -> None:
        async with live(heartbeat_interval=0.15) as (server, running):
            server.market.put_skill(skill(100), announce=False)
            server.market.rate("skill-00100", 5)
            await running.until_db(Skill.objects.filter(skill_id="skill-00100").exists, "it is fetched")
            await a_while(server)
            assert singles(server) == [("skill-00100", 200)]
            assert await runs(running) == [("start", "done")]
            assert (await running.difference()).in_sync

    async def test_rating_without_average_fetches_the_skill(self) -> None:
        async with live() as (server, running):
            server.market.rate("skill-00001", 1, with_average=False)
            await running.until_db(
                lambda: Skill.objects.get(skill_id="skill-00001").rating_count == 3, "the figures are fetched"
            )
            assert singles(server) == [("skill-00001", 200)]
            kinds = await running.ask(
                lambda: list(FeedChange.objects.filter(key="skill-00001").values_list("kind", flat=True))
            )
            assert kinds == ["skill_created", "rating_changed"]

    async def test_partial_skill_message_is_completed_by_a_fetch(self) -> None:
        async with live() as (server, running):
            server.market.put_skill(skill(100, code="x = 1"), announce=False)
            server.market.put_skill({"skill_id": "skill-00100", "name": "In part"})
            await running.until_db(Skill.objects.filter(name="In part", code="x = 1").exists, "it is whole")
            assert await runs(running) == [("start", "done")]


class TestFailingListing:
    async def test_retry_after_of_a_429_is_obeyed(self) -> None:
        async with marketplace() as server:
            times: list[float] = []

            async def note(target: str) -> None:
                times.append(time.monotonic())

            server.on_request = note
            server.faults.add("http-429", times=1, retry_after=1)
            async with mirror(server) as running:
                await running.until_state("live")
                assert await runs(running) == [("start", "done")]
                # The categories and the first page are requested together. The refused request waits, as do later ones.
                assert sorted(status for _, _, status in server.requests[:2]) == [200, 429]
                assert server.requests[2][2] == 200
                assert times[2] - times[0] >= 1.0

    async def test_few_500s_only_delay_the_sync(self) -> None:
        async with marketplace() as server:
            server.faults.add("http-500", times=3)
            async with mirror(server) as running:
                await running.until_state("live")
                assert await runs(running) == [("start", "done")]
                assert (await running.difference()).in_sync

    @pytest.mark.parametrize(
        "fault", ["http-500", "http-503", "truncated-json", "html-200", "redirect", "reset-mid-body", "unauthorized"]
    )
    async def test_failed_sync_removes_nothing_and_is_retried(self, fault: str) -> None:
        async with live(25, page_size=10) as (server, running):
            server.market.delete_skill("skill-00001", announce=False)
            server.faults.add(fault, match="page=2")
            answer = await running.command(Command.Action.SYNC)
            assert answer.state == "failed"
            assert answer.result["detail"].startswith("The full sync failed: ")
            assert await running.ask(Skill.objects.count) == 25
            failed = await running.ask(SyncRun.objects.filter(reason="asked").get)
            assert (failed.state, failed.is_clean, failed.removed) == ("failed", None, 0)
            assert failed.error
            assert (await running.status()).row.state == "live"
            server.faults.clear()
            await running.until_db(
                lambda: SyncRun.objects.filter(reason="retry", state="done").exists(), "it is retried"
            )
            assert await stored_ids(running) == set(server.market.skills)

    async def test_categories_are_stored_although_no_page_can_be_read(self) -> None:
        async with live(25) as (server, running):
            server.market.categories["new"] = {"name": "new"}
            so_far = len(server.requests)

            async def categories_first(target: str) -> None:
                while "/categories" not in target and not server.requests[so_far:]:
                    await asyncio.sleep(0)
                for _ in range(100):  # turns of the event loop, until they are read too
                    await asyncio.sleep(0)

            server.on_request = categories_first
            server.faults.add("unauthorized", match="/skills?")
            assert (await running.command(Command.Action.SYNC)).state == "failed"
            assert await running.ask(Category.objects.filter(name="new").exists)

    async def test_no_page_is_applied_without_the_categories(self, caplog: pytest.LogCaptureFixture) -> None:
        async with live(25) as (server, running):
            server.market.put_skill(skill(1000), announce=False)
            server.faults.add("unauthorized", match="/categories")
            assert (await running.command(Command.Action.SYNC)).state == "failed"
            assert await running.ask(Skill.objects.count) == 25
            server.faults.add("unauthorized", match="/skills?")
            assert (await running.command(Command.Action.SYNC)).state == "failed"
            gc.collect()
            assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
            server.faults.clear()
            await running.until_db(lambda: Skill.objects.count() == 26, "it is retried")


class TestGaps:
    async def test_messages_shed_at_the_rate_limit_cause_one_sync(self) -> None:
        async with live(100, rate_limit=20.0, heartbeat_interval=0.15) as (server, running):
            for number in range(100):
                server.market.put_skill({"skill_id": f"skill-{number:05}", "name": f"Renamed {number}"})
            await running.until_db(
                lambda: Skill.objects.filter(name__startswith="Renamed").count() == 100, "the sync has brought all"
            )
            await a_while(server)
            assert await runs(running) == [("start", "done"), ("gap", "done")]
            row = await running.ask(state_row)
            assert row.received == 100
            assert row.shed > 0
            assert row.shed + row.applied + row.unchanged + row.stale == 100
            assert await running.ask(DeadLetter.objects.count) == 0

    async def test_announced_bulk_deletes_need_no_approval_although_shed(self) -> None:
        async with live(200, rate_limit=20.0) as (server, running):
            for number in range(150):
                server.market.delete_skill(f"skill-{number:05}")
            await running.until_db(lambda: Skill.objects.count() == 50, "all are removed")
            await running.until_db(lambda: not SyncRun.objects.filter(state="running").exists(), "the sync has ended")
            assert {state for _, state in await runs(running)} == {"done"}
            assert (await running.ask(state_row)).shed > 100
            assert await stored_ids(running) == set(server.market.skills)

    async def test_locked_database_loses_no_pong_and_no_message(self) -> None:
        async with live(25, heartbeat_interval=0.2, pong_timeout=0.2) as (server, running):
            server.heartbeat_interval = 0.2
            with locked_database():
                so_far = server.heard["ping"]
                number = 1000
                while server.heard["ping"] < so_far + 6:  # six intervals, with a pong due in each
                    server.market.put_skill(skill(number))
                    number += 1
                    await asyncio.sleep(0.002)
                assert server.clients == 1
            await running.until_db(lambda: Skill.objects.count() == 25 + number - 1000, "nothing is lost")
            assert len(server.connects) == 1
            assert await runs(running) == [("start", "done")]

    async def test_full_queue_sheds_and_a_sync_repairs(self) -> None:
        async with live(25, queue_max_bytes=20_000) as (server, running):
            with locked_database():
                for number in range(1000, 1300):
                    server.market.put_skill(skill(number))
                pings = server.heard["ping"]
                await server.until(lambda: server.heard["ping"] > pings, timeout=PATIENCE)
            await running.until_db(lambda: Skill.objects.count() == 325, "the sync has brought what was shed")
            await running.until_db(lambda: state_row().received == 300, "all are counted")
            row = await running.ask(state_row)
            assert row.shed > 100
            assert "gap" in {reason for reason, _ in await runs(running)}
            assert (await running.difference()).in_sync
