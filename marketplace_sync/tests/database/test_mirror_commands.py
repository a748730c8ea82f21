"""Law 11: a command is a row that a daemon accepts and answers, or that expires."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import (
    EXPIRES_AFTER,
    MAX_OPEN_PER_ACTOR,
    TooManyOpenCommandsError,
    accept,
    answer,
    end_open_commands,
    pending_commands,
    submit_command,
)
from marketplace_sync.mirror.lease import Lease, LeaseLostError, acquire
from marketplace_sync.mirror.runs import Progress, begin_run, end_run
from marketplace_sync.models import Command, SyncRun

pytestmark = pytest.mark.django_db

State, Action = Command.State, Command.Action


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def asked(run: int = 7, by: str = "ada") -> Command:
    return submit_command(Action.SYNC, by=by, reason="to see", args={"run": run})


def allowed(command: Command) -> str:
    return ""


def overdue(command: Command) -> None:
    Command.objects.filter(pk=command.pk).update(expires_at=database_now())


def now(command: Command) -> Command:
    command.refresh_from_db()
    return command


def test_a_new_command_is_pending_with_author_and_reason() -> None:
    command = now(asked())
    assert (command.action, command.state, command.requested_by) == ("sync", "pending", "ada")
    assert (command.reason, command.args, command.result, command.finished_at) == ("to see", {"run": 7}, None, None)
    assert command.expires_at - command.requested_at == EXPIRES_AFTER


def test_pending_commands_are_listed_oldest_first_until_accepted(lease: Lease) -> None:
    commands = [asked(run) for run in range(3)]
    assert [command.pk for command in pending_commands(10)] == [command.pk for command in commands]
    assert accept(lease, commands[0].pk, allowed)
    assert [command.pk for command in pending_commands(10)] == [command.pk for command in commands[1:]]


def test_accepting_twice_keeps_the_command_accepted(lease: Lease) -> None:
    command = asked()
    assert accept(lease, command.pk, allowed) is True
    since = now(command).accepted_at
    assert since is not None
    assert accept(lease, command.pk, allowed) is True  # the connection was lost after the commit
    assert (now(command).state, command.accepted_at) == (State.ACCEPTED, since)
    answer(lease, command.pk, State.DONE, {"detail": "It is."})
    assert accept(lease, command.pk, allowed) is False
    assert accept(lease, 999, allowed) is False


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_an_answer_ends_the_command(lease: Lease, state: Command.State) -> None:
    command = asked()
    accept(lease, command.pk, allowed)
    answer(lease, command.pk, state, {"detail": "It is."})
    assert (now(command).state, command.result) == (state, {"detail": "It is."})
    assert command.finished_at is not None


def test_only_an_accepted_command_is_answered_and_only_once(lease: Lease) -> None:
    command = asked()
    answer(lease, command.pk, State.DONE, {"detail": "early"})
    assert now(command).state == State.PENDING
    accept(lease, command.pk, allowed)
    answer(lease, command.pk, State.FAILED, {"detail": "first"})
    answer(lease, command.pk, State.DONE, {"detail": "second"})
    assert (now(command).state, command.result) == (State.FAILED, {"detail": "first"})


def test_a_command_not_accepted_in_time_expires(lease: Lease) -> None:
    command = asked()
    overdue(command)
    assert accept(lease, command.pk, allowed) is False
    assert now(command).state == State.EXPIRED
    assert command.result is not None
    assert "runsync" in command.result["detail"]
    assert command.finished_at is not None


def test_the_start_ends_commands_of_a_dead_daemon_and_expired_ones(lease: Lease) -> None:
    accepted, expired, waiting, done = asked(1), asked(2), asked(3), asked(4)
    for command in (accepted, done):
        accept(lease, command.pk, allowed)
    answer(lease, done.pk, State.DONE, {"detail": "It is."})
    overdue(expired)
    end_open_commands(lease)
    assert [now(command).state for command in (accepted, expired, waiting, done)] == [
        State.FAILED, State.EXPIRED, State.PENDING, State.DONE,
    ]  # fmt: skip
    assert accepted.result is not None
    assert "stopped before it was done" in accepted.result["detail"]
    assert done.result == {"detail": "It is."}


def test_a_daemon_without_the_lease_accepts_no_command(lease: Lease) -> None:
    command = asked()
    lease.release()
    acquire("other:2")
    with pytest.raises(LeaseLostError):
        accept(lease, command.pk, allowed)
    assert now(command).state == State.PENDING


def test_an_ended_command_must_have_a_time() -> None:
    command = asked()
    for change in ({"state": State.DONE}, {"finished_at": database_now() + timedelta(0)}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Command.objects.filter(pk=command.pk).update(**change)


def test_commands_of_persons_come_before_those_of_agents(lease: Lease) -> None:
    agents = [asked(run, by="agent:busy") for run in range(5)]
    person = asked(by="user:ada")
    assert [command.pk for command in pending_commands(2)] == [person.pk, agents[0].pk, agents[1].pk]
    assert list(pending_commands(-1)) == [person]


def test_submitting_again_returns_the_open_command(lease: Lease) -> None:
    first = asked()
    Command.objects.update(expires_at=database_now() + timedelta(seconds=1))
    again = asked()
    assert again.pk == first.pk
    assert now(again).expires_at > database_now() + timedelta(seconds=50)  # it expires as late as a new one
    accept(lease, first.pk, allowed)
    assert asked().pk == first.pk
    assert [asked(8).pk, asked(by="eve").pk] != [first.pk, first.pk]
    assert Command.objects.count() == 3
    answer(lease, first.pk, State.DONE, {})
    assert asked().pk != first.pk


def test_an_expired_command_is_not_open(lease: Lease) -> None:
    stale = asked()
    overdue(stale)
    assert asked().pk != stale.pk


def test_an_actor_has_at_most_20_open_commands(lease: Lease) -> None:
    commands = [asked(run) for run in range(MAX_OPEN_PER_ACTOR)]
    assert MAX_OPEN_PER_ACTOR == 20
    with pytest.raises(TooManyOpenCommandsError):
        asked(99)
    assert asked(3).pk == commands[3].pk
    assert asked(99, by="eve").requested_by == "eve"
    overdue(commands[0])
    assert asked(99).pk


def test_a_sync_command_is_done_only_by_a_run_that_began_after_it(lease: Lease) -> None:
    command = asked()
    accept(lease, command.pk, allowed)
    run = begin_run(lease, "asked").id
    asked()
    assert answer(lease, command.pk, State.DONE, {"run": run}, after_run=run) is False
    assert now(command).state == State.ACCEPTED
    end_run(lease, run, SyncRun.State.DONE, Progress())
    later = begin_run(lease, "asked").id
    assert answer(lease, command.pk, State.DONE, {"run": later}, after_run=later) is True
    assert now(command).result == {"run": later}


def test_a_command_whose_author_lost_the_right_expires(lease: Lease) -> None:
    command = asked()
    assert accept(lease, command.pk, lambda _: "Ada was disabled.") is False
    assert now(command).state == State.EXPIRED
    assert command.result == {"detail": "Ada was disabled.", "code": "rights_withdrawn"}
