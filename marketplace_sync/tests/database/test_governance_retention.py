"""Retention of sync runs, commands and dead letters."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from marketplace_sync.mirror import retention
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.retention import forget_commands, forget_dead_letters, forget_runs
from marketplace_sync.models import Command, DeadLetter, HeldRemoval, SyncRun
from marketplace_sync.tests.support.harness import marketplace, mirror

pytestmark = pytest.mark.django_db


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("tests:1")


def run(state: str, days: float) -> int:
    then = timezone.now() - timedelta(days=days)
    ended = None if state == "running" else then
    return SyncRun.objects.create(reason="poll", state=state, started_at=then, finished_at=ended).pk


def command(state: str, days: float) -> int:
    then = timezone.now() - timedelta(days=days)
    ended = None if state in ("pending", "accepted") else then
    given = {"action": "sync", "requested_by": "x", "requested_at": then, "expires_at": then}
    return Command.objects.create(state=state, finished_at=ended, **given).pk


def dead_letter(number: int, days: float, **fields: Any) -> int:
    then = timezone.now() - timedelta(days=days)
    given = {"source": "stream", "code": "bad_type", "reason": "no", "head": b"", "size": 0, "digest": str(number)}
    return DeadLetter.objects.create(**{**given, **fields}, first_seen_at=then, last_seen_at=then).pk


def kept(model: Any) -> list[int]:
    return list(model.objects.order_by("pk").values_list("pk", flat=True))


def test_old_sync_runs_are_deleted_unless_removals_are_on_hold(lease: Lease) -> None:
    for state in ("done", "failed", "approved", "superseded", "interrupted"):
        run(state, 31)
    stays = [run("done", 29), run("held", 400), run("running", 400)]
    assert forget_runs(lease, keep_days=30) == 5
    assert kept(SyncRun) == stays
    assert forget_runs(lease, keep_days=30) == 0


def test_removals_of_an_old_run_are_deleted_before_it_in_steps(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    old, waiting = run("superseded", 31), run("held", 31)
    for pk in (old, waiting):
        HeldRemoval.objects.bulk_create(HeldRemoval(run_id=pk, skill_id=f"s{number}") for number in range(3))
    assert [forget_runs(lease, keep_days=30) for _ in range(4)] == [2, 1, 1, 0]
    assert (kept(SyncRun), HeldRemoval.objects.count()) == ([waiting], 3)


def test_old_commands_are_deleted_and_open_ones_stay(lease: Lease) -> None:
    for state in ("done", "failed", "expired"):
        command(state, 31)
    stays = [command("done", 29), command("pending", 400), command("accepted", 400)]
    assert forget_commands(lease, keep_days=30) == 3
    assert kept(Command) == stays


def test_dead_letters_are_deleted_by_age_and_by_number(lease: Lease) -> None:
    dead_letter(1, 31)
    dead_letter(2, 40, state="discarded")
    third, fourth, fifth = dead_letter(3, 5), dead_letter(4, 20), dead_letter(5, 1)
    assert forget_dead_letters(lease, keep_days=30, keep_rows=3) == 2
    assert kept(DeadLetter) == [third, fourth, fifth]
    assert forget_dead_letters(lease, keep_days=30, keep_rows=3) == 0
    assert forget_dead_letters(lease, keep_days=30, keep_rows=2) == 1
    assert kept(DeadLetter) == [third, fifth]


def test_no_step_deletes_more_than_its_size(lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    for number in range(3):
        run("done", 31), command("done", 31), dead_letter(number, 31)
    assert [forget_runs(lease, keep_days=30) for _ in range(3)] == [2, 1, 0]
    assert [forget_commands(lease, keep_days=30) for _ in range(3)] == [2, 1, 0]
    assert [forget_dead_letters(lease, keep_days=30, keep_rows=99) for _ in range(3)] == [2, 1, 0]
    for number in range(5):
        dead_letter(number, 1)
    assert [forget_dead_letters(lease, keep_days=30, keep_rows=2) for _ in range(3)] == [2, 1, 0]


@pytest.mark.django_db(transaction=True)
async def test_the_daemon_deletes_old_rows_by_its_settings() -> None:
    keeping = {"runs_keep_days": 1.0, "commands_keep_days": 2.0, "dead_letters_keep_days": 3.0}
    async with marketplace() as server, mirror(server, start=False, **keeping) as running:

        def old_and_young() -> list[int]:
            run("done", 1.5), command("done", 2.5), dead_letter(1, 3.5)
            return [run("done", 0.5), command("done", 1.5), dead_letter(2, 2.5)]

        stays = await running.ask(old_and_young)
        await running.start()
        await running.until_db(
            lambda: [kept(SyncRun)[:1], kept(Command), kept(DeadLetter)] == [[pk] for pk in stays],
            "only rows that are too old are deleted",
        )
