"""The daemon's signals: sent after the commit, in a thread of their own, and nothing waits for them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.dispatch import Signal

from marketplace_sync.models import Command, FeedChange, LeaseRow, Skill, SyncRun
from marketplace_sync.signals import changes_committed, connection_state_changed, removals_held
from marketplace_sync.tests.support.harness import marketplace, mirror, skill

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def listening(signal: Signal, listener: Callable[..., None]) -> Iterator[None]:
    signal.connect(listener)
    try:
        yield
    finally:
        signal.disconnect(listener)


async def test_signal_ranges_cover_the_feed_and_slow_listeners_delay_no_change() -> None:
    ranges: list[tuple[int, int]] = []
    go_on = threading.Event()

    def slow(first_seq: int, last_seq: int, sender: type, **_: Any) -> None:
        assert sender is FeedChange
        assert threading.current_thread().name == "mirror-signals"
        assert FeedChange.objects.filter(seq=last_seq).exists(), "sent before the commit"
        go_on.wait(90)
        ranges.append((first_seq, last_seq))

    with listening(changes_committed, slow):
        async with marketplace() as server, mirror(server) as running:
            await running.until_state("live")
            for number in range(5):
                server.market.put_skill(skill(100 + number))
                await running.until_db(
                    lambda number=number: Skill.objects.filter(skill_id=skill(100 + number)["skill_id"]).exists(),
                    "the change is applied while the listener sleeps",
                )
            assert ranges == []
            newest = (await running.ask(LeaseRow.objects.get)).feed_seq
            go_on.set()
            await running.until(lambda: reached(ranges, newest), "the listener has heard all")
    assert ranges[0][0] == 1
    assert [first for first, _ in ranges[1:]] == [last + 1 for _, last in ranges[:-1]]
    assert len(ranges) < 6, "what came while it slept is one range"


async def reached(ranges: list[tuple[int, int]], newest: int) -> bool:
    return bool(ranges) and ranges[-1][1] >= newest


async def test_listener_errors_are_logged_and_reach_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    states: list[tuple[str, str]] = []

    def broken(**_: Any) -> None:
        raise RuntimeError("a listener's own fault")

    def heard(state: str, before: str, **_: Any) -> None:
        states.append((before, state))

    with listening(connection_state_changed, broken), listening(connection_state_changed, heard):
        async with marketplace() as server, mirror(server) as running:
            await running.until_state("live")
            await running.until(lambda: has_state(states, "live"), "the listener has received it")
        # The daemon has stopped cleanly by now, and has sent its last signal.
    assert states[-1][1] == "not_running"
    assert [before for before, _ in states] == ["", *(state for _, state in states[:-1])]
    assert "a listener's own fault" in caplog.text


async def has_state(states: list[tuple[str, str]], state: str) -> bool:
    return any(after == state for _, after in states)


async def test_removals_that_wait_for_approval_are_signalled() -> None:
    received: list[dict[str, Any]] = []

    def heard(**arguments: Any) -> None:
        received.append(arguments)

    with listening(removals_held, heard):
        async with marketplace(60) as server, mirror(server) as running:
            await running.until_state("live")
            for number in range(40):
                server.market.delete_skill(skill(number)["skill_id"], announce=False)
            answer = await running.command(Command.Action.SYNC)
            held_run = await running.ask(SyncRun.objects.get, pk=answer.result["run"])
            await running.until(lambda: any_of(received), "the listener has received it")
    assert (received[0]["sender"], received[0]["run_id"], received[0]["count"]) == (SyncRun, held_run.pk, 40)
    assert received[0]["reason"] == held_run.held_reason != ""


async def any_of(received: list[dict[str, Any]]) -> bool:
    return bool(received)
