"""A command that was written before the database's clock was set back expires (law 11)."""

from datetime import timedelta

import pytest

from marketplace_sync.admin.commands import command_status
from marketplace_sync.api.waiting import ended
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.commands import accept, answer, end_open_commands, submit_command
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.mirror.runs import begin_run
from marketplace_sync.models import Command
from marketplace_sync.tests.support.api_actors import ApiClient, agent

pytestmark = pytest.mark.django_db

ACTION = Command.Action.SYNC


def asked_before_the_clock_was_put_back(seconds: float, by: str = "user:ada") -> Command:
    command = submit_command(ACTION, by=by)
    ahead = timedelta(seconds=seconds)
    command.requested_at += ahead
    command.expires_at += ahead
    command.save()
    return command


@pytest.fixture
def lease() -> Lease:
    return acquire("a:1")


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 3 * 86_400.0])
def test_command_from_before_the_clock_was_set_back_is_not_executed(lease: Lease, seconds: float) -> None:
    command = asked_before_the_clock_was_put_back(seconds)
    assert ended(command)
    assert command_status(command, database_now(), alive=True).state == "expired"
    assert not accept(lease, command.pk, lambda _: "")
    command.refresh_from_db()
    assert command.state == "expired"
    assert command.finished_at is not None and command.finished_at <= database_now()


def test_such_a_command_expires_at_the_daemons_start_and_does_not_count(lease: Lease) -> None:
    command = asked_before_the_clock_was_put_back(3600)
    # The same action is a new command, not this one again.
    assert submit_command(ACTION, by="user:ada").pk != command.pk
    end_open_commands(lease)
    command.refresh_from_db()
    assert command.state == "expired"
    assert Command.objects.filter(state="pending").count() == 1


def test_api_shows_it_as_expired_and_not_in_the_future() -> None:
    client: ApiClient = agent()
    command = asked_before_the_clock_was_put_back(3600)
    shown = client.get(f"/api/admin/commands/{command.pk}/").json()
    assert shown["state"] == "expired"
    assert shown["finished_at"] <= database_now().isoformat()


def test_clock_one_second_ahead_expires_nothing(lease: Lease) -> None:
    command = asked_before_the_clock_was_put_back(1.0)
    assert not ended(command)
    assert accept(lease, command.pk, lambda _: "")


def test_repetition_dated_ahead_does_not_keep_a_command_open(lease: Lease) -> None:
    command = submit_command(ACTION, by="user:ada")
    assert accept(lease, command.pk, lambda _: "")
    Command.objects.update(repeated_at=database_now() + timedelta(hours=1))
    run = begin_run(lease, "asked")
    assert answer(lease, command.pk, Command.State.DONE, {}, after_run=run.id)
