"""Dead letters: an unstorable item affects no other, its gap ends in one repair, and nothing loops."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from marketplace_sync.daemon import command_desk
from marketplace_sync.engine import absence, schedule
from marketplace_sync.mirror.arrived import Arrived, Effect, Item, RefusedInput
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.dead_letters import recent_rate, save_dead_letters
from marketplace_sync.mirror.isolate import apply_each
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.models import Command, DeadLetter, FeedChange, Skill, SyncRun
from marketplace_sync.protocol.events import CategoryRecord, RatingChanged, SkillDeleted, SkillRecord
from marketplace_sync.protocol.refusals import Code, Refusal
from marketplace_sync.protocol.stamps import Stamp
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.support.harness import PATIENCE, Mirror, marketplace, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)

LATER = Stamp("2026-04-01T00:00:00")
STREAM, LISTING = FeedChange.Source.STREAM, FeedChange.Source.LISTING


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "GAP_QUIET_SECONDS", 0.05)
    monkeypatch.setattr(schedule, "GAP_MAX_WAIT_SECONDS", 1.0)
    monkeypatch.setattr(command_desk, "LOOK_EVERY_SECONDS", 0.02)


@contextmanager
def poisonous(name: str) -> Iterator[None]:
    """Let the database refuse a skill of that name, which the decoder accepts: a limit that it does not know."""
    on_sqlite = (
        f"CREATE TRIGGER poison_{{verb}} BEFORE {{verb}} ON marketplace_sync_skill WHEN NEW.name = '{name}' "
        "BEGIN SELECT RAISE(ABORT, 'no such name'); END"
    )
    on_postgres = f"ALTER TABLE marketplace_sync_skill ADD CONSTRAINT poison CHECK (name <> '{name}')"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            for verb in ("insert", "update"):
                cursor.execute(on_sqlite.format(verb=verb))
        else:
            cursor.execute(on_postgres)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute("DROP TRIGGER poison_insert")
                cursor.execute("DROP TRIGGER poison_update")
            else:
                cursor.execute("ALTER TABLE marketplace_sync_skill DROP CONSTRAINT poison")


def items(*events: Any, source: FeedChange.Source = STREAM) -> list[Item]:
    return [Arrived(event, number, source, polled=source != STREAM) for number, event in enumerate(events, 1)]


def record(number: int, **fields: Any) -> SkillRecord:
    return SkillRecord(f"s{number}", {"name": f"Skill {number}", **fields}, {}, Stamp("2026-03-01T00:00:00"))


# Beyond the decoder's own limits: no column, constraint or driver accepts them.
UNSTORABLE = {
    "past-a-constraint": {"average_rating": 7.0},
    "past-64-bits": {"rating_count": 2**70},
    "half-a-character": {"description": "\ud800"},
}
# SQLite stores these as they are.
UNSTORABLE_IN_POSTGRES = {
    "nul": {"description": "a\0b"},
    "too-long": {"name": "x" * 401},
    "past-a-document": {"tags": ["\0"]},
}


class TestOneUnstorableItem:
    @pytest.mark.parametrize("at", [0, 1, 5, 9])
    @pytest.mark.parametrize("kind", sorted(UNSTORABLE))
    def test_becomes_a_dead_letter_and_the_others_are_applied_in_order(self, lease: Lease, kind: str, at: int) -> None:
        events = [record(number) for number in range(10)]
        events[at] = record(at, **UNSTORABLE[kind])
        self._costs_itself(lease, events, at)

    @pytest.mark.usefixtures("postgres")
    @pytest.mark.parametrize("kind", sorted(UNSTORABLE_IN_POSTGRES))
    def test_becomes_a_dead_letter_where_only_postgresql_refuses_it(self, lease: Lease, kind: str) -> None:
        self._costs_itself(lease, [record(0), record(1, **UNSTORABLE_IN_POSTGRES[kind]), record(2)], 1)

    def _costs_itself(self, lease: Lease, events: list[SkillRecord], at: int) -> None:
        result = apply_each(items(*events), lease)
        assert result.effects == [Effect.REFUSED if n == at else Effect.CREATED for n in range(len(events))]
        others = [f"s{n}" for n in range(len(events)) if n != at]
        assert list(FeedChange.objects.order_by("seq").values_list("seq", "key")) == list(enumerate(others, 1))
        assert result.feed_seq == len(others)
        dead_letter = DeadLetter.objects.get()
        assert (dead_letter.code, dead_letter.source, dead_letter.key, dead_letter.kind) == (
            "unstorable", "stream", f"s{at}", "skill_update",
        )  # fmt: skip
        found = json.loads(bytes(dead_letter.head))
        assert (found["type"], found["data"]["skill_id"]) == ("skill_update", f"s{at}")

    def test_refused_again_is_counted_up_also_when_alone(self, lease: Lease) -> None:
        for _ in range(3):
            assert apply_each(items(record(1, average_rating=9.0)), lease).effects == [Effect.REFUSED]
        assert DeadLetter.objects.get().count == 3
        assert not Skill.objects.exists()

    @pytest.mark.parametrize(
        ("event", "kind"),
        [
            (RatingChanged("s1", 5, {"average_rating": 7.0, "rating_count": 1}, LATER), "rating_update"),
            (CategoryRecord("c", {"skill_count": -1}, LATER), "category_update"),
        ],
    )
    def test_dead_letter_has_the_kind_of_the_item(self, lease: Lease, event: Any, kind: str) -> None:
        apply_each(items(record(1)), lease)
        fine = SkillDeleted("nobody", LATER)
        assert Effect.REFUSED in apply_each(items(fine, event), lease).effects
        assert DeadLetter.objects.get().kind == kind
        listed = apply_each(items(event, source=LISTING), lease)
        assert listed.effects == [Effect.REFUSED]
        assert DeadLetter.objects.get(source="listing").kind == ("category" if kind.startswith("category") else "")

    def test_dead_letter_that_cannot_be_stored_is_only_counted(self, lease: Lease) -> None:
        dead_letter = RefusedInput(
            Refusal(Code.NOT_JSON, "", "no JSON"), DeadLetter.Source.STREAM, b"x", 2**80, "d" * 64
        )
        assert apply_each([*items(record(1)), dead_letter], lease).effects == [Effect.CREATED, Effect.REFUSED]
        assert Skill.objects.count() == 1 and not DeadLetter.objects.exists()

    def test_lost_lease_is_not_a_refusal(self, lease: Lease) -> None:
        lease.release()
        acquire("other:2")
        with pytest.raises(LeaseLostError):
            apply_each(items(record(1), record(2, average_rating=9.0)), lease)
        assert not DeadLetter.objects.exists()

    @pytest.mark.usefixtures("postgres")
    def test_temporary_database_error_is_not_a_refusal(self, lease: Lease) -> None:
        other = connection.copy()
        other.settings_dict = {**other.settings_dict, "OPTIONS": {}}
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '50ms'")
                with other.cursor() as blocking:
                    other.set_autocommit(False)
                    blocking.execute("SELECT 1 FROM marketplace_sync_lease WHERE id = 1 FOR UPDATE")
                with pytest.raises(OperationalError, match="lock timeout"):
                    apply_each(items(record(1), record(2)), lease)
        finally:
            other.close()
        assert not DeadLetter.objects.exists()


async def test_item_refused_by_the_database_causes_one_fetch_and_can_be_replayed_later() -> None:
    async with marketplace(skills=20) as server, mirror(server, heartbeat_interval=0.15) as running:
        await running.until_state("live")
        poison = poisonous("poison")
        await running.ask(poison.__enter__)
        for number in range(30, 40):
            server.market.put_skill(skill(number))
        server.market.put_skill({"skill_id": "skill-00003", "name": "poison"})
        for number in range(40, 50):
            server.market.put_skill(skill(number))
        await running.until_db(lambda: Skill.objects.count() == 40, "all others are applied")
        await running.until_db(DeadLetter.objects.filter(source="listing").exists, "it was fetched, and refused again")
        await a_while(server)
        assert [target for _, target, _ in server.requests if "skill-00003" in target] == ["/api/v1/skills/skill-00003"]
        assert await runs(running) == ["start"]

        # A full sync lists it, refused again: no removal, no gap, no further sync.
        answer = await running.command(Command.Action.SYNC)
        run = await running.ask(SyncRun.objects.get, pk=answer.result["run"])
        assert (run.state, run.is_clean, run.refused, run.removed) == ("degraded", True, 1, 0)
        await a_while(server)
        assert await runs(running) == ["start", "asked"]
        assert (await running.ask(Skill.objects.get, skill_id="skill-00003")).name == "Skill 3"
        dead_letter = await running.ask(DeadLetter.objects.get, source="stream")
        assert (dead_letter.code, dead_letter.key) == ("unstorable", "skill-00003")
        refused = await running.command(Command.Action.REPLAY, dead_letter=dead_letter.pk)
        assert (refused.state, "database refuses it" in refused.result["detail"]) == ("failed", True)

        await running.ask(poison.__exit__, None, None, None)
        answer = await running.command(Command.Action.REPLAY, dead_letter=dead_letter.pk)
        assert (answer.state, answer.result["effect"]) == ("done", "updated")
        await running.until_in_sync()


async def test_permanently_malformed_message_does_not_cause_endless_syncs() -> None:
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        began, sent = time.monotonic(), 0
        while sent < 60:
            server.send_raw('{"type": "skill_update", "data": {"name": "Nobody\'s"}}')
            sent += 1
            await server.drain()
            await asyncio.sleep(0.06)  # longer than the quiet time after which a gap's sync begins
        took = time.monotonic() - began
        await running.until_db(lambda: DeadLetter.objects.get().count == sent, "it is one dead letter, counted up")
        gaps = (await runs(running)).count("gap")
        # The spacing doubles up to a second (in production: a minute), and then stays there.
        assert 1 <= gaps <= took / 1.0 + 7, (gaps, took)
        assert gaps < sent / 3
        quiet = len(await runs(running))
        await until_quiet(running)
        assert len(await runs(running)) <= quiet + 1


async def test_unclean_syncs_fetch_all_absent_skills_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(absence, "MAX_PROOFS", 5)
    async with marketplace(skills=30) as server, mirror(server, page_size=5) as running:
        await running.until_state("live")
        # The second page comes empty, with full totals: 25 skills are absent, and single fetches find them.
        server.faults.add("partial-listing")
        asked: list[str] = []
        for _ in range(6):
            so_far = len(server.requests)
            assert (await running.command(Command.Action.SYNC)).state == "done"
            targets = [target for _, target, _ in list(server.requests)[so_far:]]
            asked += [target.rpartition("/")[2] for target in targets if "/skill-" in target]
        assert len(asked) == 30 and len(set(asked)) == 25
        assert asked[25:] == asked[:5]
        assert await running.ask(Skill.objects.count) == 30


async def test_refused_rows_are_logged_in_one_line_per_sync(caplog: pytest.LogCaptureFixture) -> None:
    async with marketplace(skills=30) as server:
        for number in range(12):
            server.market.skills[f"skill-{number:05}"]["tags"] = "no list"
        with caplog.at_level(logging.WARNING):
            async with mirror(server) as running:
                await running.until_state("live")
        found = [record.msg for record in caplog.records if "refused" in str(record.msg)]
        assert [(line["event"], line["count"]) for line in found] == [("rows_refused", 12)]
        assert "bad_type" in found[0]["first"] and found[0]["first_key"].startswith("skill-000")


def test_dead_letter_rate_counts_the_last_hour_by_code(lease: Lease) -> None:
    now = database_now()

    def dead_letter(code: Code, raw: str) -> RefusedInput:
        return RefusedInput.of(Refusal(code, "", "because"), raw, DeadLetter.Source.STREAM)

    assert recent_rate() == {}
    save_dead_letters([dead_letter(Code.NOT_JSON, "a"), dead_letter(Code.MISSING, "b")], now - timedelta(minutes=90))
    save_dead_letters([dead_letter(Code.NOT_JSON, str(n)) for n in range(3)], now - timedelta(minutes=5))
    save_dead_letters([dead_letter(Code.MISSING, "b")], now)
    assert recent_rate() == {"not_json": 3, "missing": 1}
    assert recent_rate(timedelta(hours=2)) == {"not_json": 4, "missing": 1}
    assert recent_rate(timedelta(minutes=1)) == {"missing": 1}


def test_dead_letters_are_written_in_few_statements_and_counted_up(lease: Lease) -> None:
    """With one statement each, SQLite's file stays locked for seconds while the event loop is busy."""

    def dead_letters(many: int) -> list[RefusedInput]:
        refusal = Refusal(Code.MISSING, "name", "required")
        return [RefusedInput.of(refusal, f"row {number}", DeadLetter.Source.LISTING) for number in range(many)]

    with CaptureQueriesContext(connection) as queries:
        save_dead_letters([*dead_letters(3), *dead_letters(1100), *dead_letters(1)], database_now())
    inserts = [query["sql"] for query in queries if "INSERT" in query["sql"]]
    assert len(inserts) == 3 and not any(" times: " in sql for sql in inserts)
    assert dict(DeadLetter.objects.filter(count__gt=1).values_list("head", "count")) == {
        b"row 0": 3, b"row 1": 2, b"row 2": 2,
    }  # fmt: skip
    assert DeadLetter.objects.count() == 1100
    DeadLetter.objects.filter(head=b"row 0").update(state=DeadLetter.State.REPLAYED)
    DeadLetter.objects.filter(head=b"row 1").update(state=DeadLetter.State.DISCARDED)
    save_dead_letters(dead_letters(3), database_now())
    found = DeadLetter.objects.filter(count__gt=1).order_by("pk").values_list("state", "count")
    assert list(found) == [("open", 4), ("discarded", 3), ("open", 3)]


async def runs(running: Mirror) -> list[str]:
    return await running.ask(lambda: list(SyncRun.objects.order_by("pk").values_list("reason", flat=True)))


async def a_while(server: SimulatorServer) -> None:
    """Wait for two heartbeats: long enough for what must not happen."""
    so_far = server.heard["ping"]
    await server.until(lambda: server.heard["ping"] >= so_far + 2, timeout=PATIENCE)


async def until_quiet(running: Mirror) -> None:
    """Wait until no full sync is under way or due: a gap waits a second here at most."""
    seen, since = -1, time.monotonic()

    async def quiet() -> bool:
        nonlocal seen, since
        if (count := len(await runs(running))) != seen:
            seen, since = count, time.monotonic()
        return time.monotonic() - since > 2.0

    await running.until(quiet, "no further pass begins")
