"""When a full sync begins: each rule by example, and no cause is lost over random histories."""

from collections.abc import Callable
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace_sync.engine.schedule import Reason, Schedule, SyncOrder, SyncOutcome

POLL = 900.0


def words(order: SyncOrder | None) -> list[str]:
    return [] if order is None else [str(reason) for reason in order.reasons]


def run(
    schedule: Schedule, at: float, outcome: SyncOutcome = SyncOutcome.DONE, retry_after: float | None = None
) -> list[str]:
    """Begin the full sync that is due then, end it in the same instant, and return its reasons."""
    order = schedule.sync_began(at)
    schedule.sync_ended(at, outcome, retry_after)
    return words(order)


def settled(at: float = 0.0, poll_interval: float = POLL) -> Schedule:
    """Return a schedule whose first full sync is done."""
    schedule = Schedule(poll_interval=poll_interval)
    schedule.stream_opened(at)
    assert run(schedule, at) == ["start"]
    return schedule


def test_first_sync_waits_for_the_stream_or_its_first_failure() -> None:
    schedule = Schedule(poll_interval=POLL)
    schedule.loss(0)
    schedule.commanded(0, 1)
    assert schedule.next_wake() is None and schedule.due(10**6) is None
    schedule.first_attempt_failed(5)
    assert schedule.next_wake() is not None
    order = schedule.due(5)
    assert words(order) == ["asked", "start", "gap"]
    assert order is not None and order.reason is Reason.ASKED and order.commands == (1,)

    schedule = Schedule(poll_interval=POLL)
    schedule.stream_opened(5)
    assert words(schedule.due(5)) == ["start"]


def test_only_the_first_failed_attempt_counts() -> None:
    schedule = settled()
    schedule.first_attempt_failed(1)
    assert schedule.due(1) is None


def test_every_later_connect_is_followed_by_one_sync() -> None:
    schedule = settled()
    schedule.stream_opened(10)
    schedule.stream_opened(11)
    assert run(schedule, 11) == ["connected"]
    assert schedule.due(11) is None


def test_running_sync_is_not_restarted_but_followed_by_one_more() -> None:
    schedule = Schedule(poll_interval=POLL)
    schedule.first_attempt_failed(0)
    schedule.sync_began(0)
    schedule.stream_opened(3)
    assert schedule.due(10**6) is None and schedule.next_wake() is None
    schedule.sync_ended(20, SyncOutcome.DONE)
    assert not schedule.caught_up
    assert run(schedule, 20) == ["connected"]
    assert schedule.caught_up


def test_caught_up_needs_a_completed_sync_begun_after_the_latest_opening() -> None:
    schedule = Schedule(poll_interval=POLL)
    schedule.first_attempt_failed(0)
    run(schedule, 0)
    assert not schedule.caught_up  # no stream has opened
    schedule.stream_opened(1)
    run(schedule, 1, SyncOutcome.FAILED)
    assert not schedule.caught_up
    run(schedule, 6, SyncOutcome.HELD)
    assert schedule.caught_up
    schedule.stream_opened(7)
    assert not schedule.caught_up


def test_poll_interval_counts_from_the_end_of_any_sync() -> None:
    schedule = settled()
    schedule.commanded(100)
    schedule.sync_began(100)
    schedule.sync_ended(150, SyncOutcome.DONE)
    assert schedule.next_wake() == 150 + POLL
    assert schedule.due(149.9 + POLL) is None
    assert run(schedule, 150 + POLL) == ["poll"]


def test_gap_causes_a_sync_one_second_after_the_last_loss() -> None:
    schedule = settled()
    schedule.loss(10)
    schedule.loss(10.8)
    assert schedule.next_wake() == pytest.approx(11.8)
    assert schedule.due(11.7) is None
    assert run(schedule, 11.8) == ["gap"]
    assert schedule.next_wake() == 11.8 + POLL  # covered


def test_sync_begins_every_minute_while_losses_last() -> None:
    schedule = settled()
    begun: list[float] = []
    for tenth in range(10, 2810):  # losses, ten per second, until 280.9
        now = tenth / 10
        schedule.loss(now)
        if schedule.due(now):
            begun.append(now)
            run(schedule, now)
    assert begun == pytest.approx([61, 121.1, 181.2, 241.3])
    assert schedule.next_wake() == pytest.approx(281.9)  # the one after the last loss
    assert run(schedule, 282) == ["gap"]


def test_losses_during_a_sync_need_one_more_and_losses_before_it_do_not() -> None:
    schedule = settled()
    schedule.loss(10)
    schedule.commanded(10)
    assert words(schedule.sync_began(10)) == ["asked", "gap"]
    schedule.loss(12)
    schedule.sync_ended(20, SyncOutcome.DONE)
    assert run(schedule, 20) == ["gap"]
    assert schedule.next_wake() == 20 + POLL


def test_failed_sync_is_retried_for_the_same_reasons() -> None:
    schedule = settled()
    schedule.stream_opened(10)
    schedule.loss(10)
    schedule.confirm_needed(10)
    assert run(schedule, 10, SyncOutcome.FAILED) == ["connected", "confirm", "gap"]
    at, waits = 10.0, []
    for _ in range(6):
        wake = schedule.next_wake()
        assert wake is not None
        assert schedule.due(wake - 0.001) is None
        waits.append(wake - at)
        at = wake
        assert run(schedule, at, SyncOutcome.FAILED) == ["retry", "connected", "confirm", "gap"]
    assert waits == [5, 10, 20, 40, 60, 60]
    assert run(schedule, at + 60) == ["retry", "connected", "confirm", "gap"]
    assert schedule.next_wake() == at + 60 + POLL
    schedule.poll_now(at + 70)
    run(schedule, at + 70, SyncOutcome.FAILED)
    assert schedule.next_wake() == at + 75  # the back-off began again


def test_back_off_is_never_longer_than_the_poll_interval() -> None:
    schedule = settled(poll_interval=2.0)
    run(schedule, 2.0, SyncOutcome.FAILED)
    assert schedule.next_wake() == 4.0


@pytest.mark.parametrize(("retry_after", "wait"), [(None, 5), (1, 5), (30, 30), (99_999, 3600), (float("nan"), 5)])
def test_retry_after_lengthens_the_back_off_up_to_an_hour(retry_after: float | None, wait: float) -> None:
    schedule = settled()
    schedule.poll_now(10)
    run(schedule, 10, SyncOutcome.FAILED, retry_after)
    assert schedule.next_wake() == 10 + wait


def test_back_off_ends_when_its_cause_is_removed() -> None:
    schedule = settled()
    schedule.stream_opened(10)
    run(schedule, 10, SyncOutcome.FAILED, retry_after=2000)
    schedule.cause_removed(30)
    assert schedule.next_wake() == 30
    assert run(schedule, 30, SyncOutcome.FAILED) == ["retry", "connected"]
    assert schedule.next_wake() == 40  # one try; the delays continue where they were
    assert run(schedule, 40) == ["retry", "connected"]
    schedule.cause_removed(50)
    assert schedule.next_wake() == 40 + POLL


def test_only_a_command_interrupts_the_back_off() -> None:
    schedule = settled()
    schedule.poll_now(10)
    run(schedule, 10, SyncOutcome.FAILED, retry_after=2000)
    schedule.stream_opened(11)
    schedule.loss(11)
    schedule.confirm_needed(11)
    schedule.poll_now(11)
    assert schedule.next_wake() == 2010  # not even for the interval of 900 s
    schedule.commanded(12, 7)
    assert schedule.next_wake() == 12
    assert run(schedule, 12)[:2] == ["asked", "retry"]
    assert schedule.next_wake() == 12 + POLL


def test_waiting_commands_share_a_sync_and_later_ones_get_the_next() -> None:
    schedule = settled()
    schedule.commanded(10, 1)
    schedule.commanded(11, 2, 3)
    schedule.commanded(11, 2)
    assert schedule.sync_began(12).commands == (1, 2, 3)
    schedule.commanded(13, 4)
    schedule.sync_ended(20, SyncOutcome.DONE)
    assert schedule.sync_began(20).commands == (4,)


def test_failed_sync_answers_its_commands_and_is_retried_after_the_back_off() -> None:
    schedule = settled()
    schedule.commanded(10, 1)
    assert run(schedule, 10, SyncOutcome.FAILED) == ["asked"]
    assert schedule.next_wake() == 15
    order = schedule.sync_began(15)
    assert (words(order), order.commands) == (["retry"], ())


def test_interrupted_sync_restores_everything_without_back_off() -> None:
    schedule = settled()
    schedule.commanded(10, 1)
    schedule.loss(10)
    schedule.sync_began(10)
    schedule.commanded(11, 2)
    schedule.sync_ended(12, SyncOutcome.INTERRUPTED)
    order = schedule.sync_began(12)
    assert (words(order), order.commands) == (["asked", "gap"], (1, 2))


def test_fallback_begins_with_a_sync_before_the_first_attempt_is_reported() -> None:
    schedule = Schedule(poll_interval=POLL)
    schedule.poll_now(3)
    assert run(schedule, 3) == ["fallback"]


def test_begin_and_end_out_of_order_raise() -> None:
    schedule = settled()
    with pytest.raises(RuntimeError, match="no full sync is due"):
        schedule.sync_began(1)
    with pytest.raises(RuntimeError, match="no full sync is under way"):
        schedule.sync_ended(1, SyncOutcome.DONE)
    schedule.commanded(1)
    schedule.sync_began(1)
    assert schedule.running
    with pytest.raises(RuntimeError, match="a full sync is under way"):
        schedule.sync_began(1)


CAUSES: dict[str, tuple[Callable[[Schedule, float], None], Reason]] = {
    "opened": (Schedule.stream_opened, Reason.CONNECTED),
    "first_failed": (Schedule.first_attempt_failed, Reason.START),
    "poll_now": (Schedule.poll_now, Reason.FALLBACK),
    "loss": (Schedule.loss, Reason.GAP),
    "confirm": (Schedule.confirm_needed, Reason.CONFIRM),
}
STEPS = [*CAUSES, "asked", "wait", "sleep", *SyncOutcome]
# After any history: what runs is completed, and what is due later is waited for.
CALM = ["first_failed", "done", "sleep", "done", "sleep", "done"]


class Daemon:
    """Begin what is due immediately, as the daemon does, and keep a simple record of what is wanted."""

    def __init__(self) -> None:
        self.schedule = Schedule(poll_interval=POLL)
        self.now = 0.0
        self.released = False
        self.wanted: list[Reason] = []  # causes that no completed sync has covered yet
        self.tickets: dict[int, int] = {}  # command: number of syncs begun before it
        self.commands = count(1)
        self.begun = 0
        self.order: SyncOrder | None = None
        self.covers: list[Reason] = []

    def does(self, step: str) -> None:
        if step in CAUSES:
            self.cause(step)
        elif step == "asked":
            command = next(self.commands)
            self.tickets[command] = self.begun
            self.schedule.commanded(self.now, command)
        elif step == "wait":
            self.now += 0.5
        elif step == "sleep":
            self.now = max(self.now, self.schedule.next_wake() or self.now)
        elif self.order is not None:
            self.ends(self.order, SyncOutcome(step))
        self.begins_what_is_due()

    def cause(self, step: str) -> None:
        report, reason = CAUSES[step]
        report(self.schedule, self.now)
        if step == "opened" and not self.released:
            reason = Reason.START
        if step != "first_failed" or not self.released:
            self.wanted.append(reason)
        self.released = self.released or step in ("opened", "first_failed", "poll_now")

    def ends(self, order: SyncOrder, outcome: SyncOutcome) -> None:
        self.schedule.sync_ended(self.now, outcome)
        if outcome in (SyncOutcome.FAILED, SyncOutcome.INTERRUPTED):
            self.wanted += self.covers
        if outcome is not SyncOutcome.INTERRUPTED:
            for command in order.commands:
                assert self.tickets.pop(command) < self.begun, "answered by a sync that began before the command"
        self.order, self.covers = None, []

    def begins_what_is_due(self) -> None:
        if self.schedule.due(self.now) is not None:
            assert self.order is None, "two syncs at the same time"
            assert self.released, "before the stream was open or had failed"
            self.order = self.schedule.sync_began(self.now)
            self.begun += 1
            self.covers, self.wanted = self.wanted, []
            assert set(self.covers) <= set(self.order.reasons)
            assert set(self.order.commands) == set(self.tickets)
        if self.order is None and self.released and (self.wanted or self.tickets):
            wake = self.schedule.next_wake()
            assert wake is not None, "wanted, and no sync will begin"
            assert self.now < wake <= self.now + 60


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_no_cause_is_lost_in_any_history(steps: list[str]) -> None:
    daemon = Daemon()
    for step in [*steps, *CALM]:
        daemon.does(step)
    assert (daemon.wanted, daemon.covers, daemon.tickets) == ([], [], {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=50, max_size=400), st.floats(0, 30))
def test_endless_losses_cost_one_sync_per_minute_and_one_after_them(pauses: list[float], sync_lasts: float) -> None:
    schedule = settled()
    now, ends_at = 0.0, None
    begun: list[float] = []
    for pause in pauses:
        now += pause
        if ends_at is not None and now >= ends_at:
            schedule.sync_ended(now, SyncOutcome.DONE)
            ends_at = None
        schedule.loss(now)
        if schedule.due(now):
            schedule.sync_began(now)
            begun.append(now)
            ends_at = now + sync_lasts
    assert len(begun) <= now / 60
    assert all(later - earlier >= 60 for earlier, later in pairwise(begun))
    if ends_at is not None:
        schedule.sync_ended(now, SyncOutcome.DONE)
    schedule.loss(now)
    wake = schedule.next_wake()
    # Syncs for gaps that follow one another are 1, 2, 4 ... 60 s apart at least.
    spaced = begun[-1] + min(2 ** (len(begun) - 1), 60) if begun else now
    assert wake is not None and wake <= max(now + 1, spaced)
    assert run(schedule, wake) == ["gap"]
    assert schedule.next_wake() == wake + POLL


def test_slow_noise_costs_no_more_syncs_than_a_flood() -> None:
    """Lose a message every 2.2 s: each gap is due before the next loss comes."""
    schedule = Schedule(poll_interval=900.0)
    schedule.first_attempt_failed(0.0)
    schedule.sync_began(0.0)
    schedule.sync_ended(0.5, SyncOutcome.DONE)
    begun, next_loss, now = [], 1.0, 1.0
    while now < 600.0:
        wake = schedule.next_wake()
        assert wake is not None
        now = min(max(wake, now), next_loss)
        if now == next_loss:
            schedule.loss(now)
            next_loss += 2.2
        elif schedule.due(now) is not None:
            schedule.sync_began(now)
            schedule.sync_ended(now + 0.1, SyncOutcome.DONE)
            begun.append(now)
    assert begun[0] == pytest.approx(2.0)  # the first is repaired immediately
    assert len(begun) <= 600 / 60 + 6  # the others are further and further apart, up to a minute
