"""Law 11: a request is a row that is taken on and answered, or expires."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import (
    EXPIRES_AFTER,
    accept,
    answer,
    close_open_commands,
    open_commands,
    request,
)
from marketplace_sync.mirror.lease import Lease, LeaseLost, acquire
from marketplace_sync.models import Command

pytestmark = pytest.mark.django_db

State, Action = Command.State, Command.Action


@pytest.fixture
def lease(db: None) -> Lease:
    return acquire("test:1")


def asked(action: Command.Action = Action.SYNC) -> Command:
    return request(action, by="ada", reason="to see", args={"run": 7})


def overdue(command: Command) -> None:
    Command.objects.filter(pk=command.pk).update(expires_at=database_now())


def now(command: Command) -> Command:
    command.refresh_from_db()
    return command


def test_a_request_waits_and_says_who_asked_for_what_and_why() -> None:
    command = now(asked())
    assert (command.action, command.state, command.requested_by) == ("sync", "pending", "ada")
    assert (command.reason, command.args, command.result, command.finished_at) == ("to see", {"run": 7}, None, None)
    assert command.expires_at - command.requested_at == EXPIRES_AFTER


def test_requests_are_seen_oldest_first_until_they_are_taken_on(lease: Lease) -> None:
    commands = [asked() for _ in range(3)]
    assert [command.pk for command in open_commands()] == [command.pk for command in commands]
    assert accept(lease, commands[0].pk)
    assert [command.pk for command in open_commands()] == [command.pk for command in commands[1:]]


def test_a_request_stays_taken_on_when_its_daemon_has_to_say_so_twice(lease: Lease) -> None:
    command = asked()
    assert accept(lease, command.pk) is True
    since = now(command).accepted_at
    assert since is not None
    assert accept(lease, command.pk) is True  # the connection was lost after the commit
    assert (now(command).state, command.accepted_at) == (State.ACCEPTED, since)
    answer(lease, command.pk, State.DONE, {"detail": "It is."})
    assert accept(lease, command.pk) is False
    assert accept(lease, 999) is False


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_an_answer_ends_it(lease: Lease, state: Command.State) -> None:
    command = asked()
    accept(lease, command.pk)
    answer(lease, command.pk, state, {"detail": "It is."})
    assert (now(command).state, command.result) == (state, {"detail": "It is."})
    assert command.finished_at is not None


def test_only_what_was_taken_on_is_answered_and_only_once(lease: Lease) -> None:
    command = asked()
    answer(lease, command.pk, State.DONE, {"detail": "early"})
    assert now(command).state == State.PENDING
    accept(lease, command.pk)
    answer(lease, command.pk, State.FAILED, {"detail": "first"})
    answer(lease, command.pk, State.DONE, {"detail": "second"})
    assert (now(command).state, command.result) == (State.FAILED, {"detail": "first"})


def test_a_request_that_nobody_took_on_in_time_expires_when_it_is_looked_at(lease: Lease) -> None:
    command = asked()
    overdue(command)
    assert accept(lease, command.pk) is False
    assert now(command).state == State.EXPIRED
    assert command.result is not None
    assert "runsync" in command.result["detail"]
    assert command.finished_at is not None


def test_the_start_closes_what_a_dead_daemon_left_open_and_what_expired(lease: Lease) -> None:
    accepted, expired, waiting, done = asked(), asked(), asked(), asked()
    for command in (accepted, done):
        accept(lease, command.pk)
    answer(lease, done.pk, State.DONE, {"detail": "It is."})
    overdue(expired)
    close_open_commands(lease)
    assert [now(command).state for command in (accepted, expired, waiting, done)] == [
        State.FAILED, State.EXPIRED, State.PENDING, State.DONE,
    ]  # fmt: skip
    assert accepted.result is not None
    assert "stopped before it was done" in accepted.result["detail"]
    assert done.result == {"detail": "It is."}


def test_who_has_lost_the_lease_takes_nothing_on(lease: Lease) -> None:
    command = asked()
    lease.release()
    acquire("other:2")
    with pytest.raises(LeaseLost):
        accept(lease, command.pk)
    assert now(command).state == State.PENDING


def test_the_database_holds_a_command_to_ending_with_a_time() -> None:
    command = asked()
    for change in ({"state": State.DONE}, {"finished_at": database_now() + timedelta(0)}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Command.objects.filter(pk=command.pk).update(**change)
