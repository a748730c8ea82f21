"""The state of commands on the pages, also without a daemon."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from marketplace_sync.admin.commands import command_status, result_text
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import Command, WebSocketState
from marketplace_sync.tests.support.admin_rows import person

pytestmark = pytest.mark.django_db

HOME = reverse("admin:marketplace_sync_websocketstate_changelist")


def command(state: str, **more: object) -> Command:
    now = database_now()
    fields: dict[str, object] = {"requested_at": now, "expires_at": now + timedelta(seconds=60), **more}
    if state in ("done", "failed", "expired"):
        fields["finished_at"] = now
    return Command.objects.create(action="reconnect", state=state, requested_by="user:root", **fields)


@pytest.mark.parametrize(
    ("state", "alive", "shown", "words", "is_open"),
    [
        ("pending", True, "pending", "Waiting for the daemon", True),
        ("pending", False, "pending", "No daemon is running. The command expires in", True),
        ("accepted", True, "accepted", "The daemon is executing it", True),
        ("accepted", False, "accepted", "No daemon is running", True),
        ("done", False, "done", "A new stream is open.", False),
        ("failed", True, "failed", "A new stream is open.", False),
        ("expired", False, "expired", "A new stream is open.", False),
    ],
)
def test_each_state_is_explained(state: str, alive: bool, shown: str, words: str, is_open: bool) -> None:
    row = command(state, result={"detail": "A new stream is open."})
    view = command_status(row, database_now(), alive=alive)
    assert (view.state, view.open) == (shown, is_open)
    assert words in view.detail


def test_overdue_command_is_expired_without_a_daemon() -> None:
    row = command("pending", expires_at=database_now() - timedelta(seconds=1))
    view = command_status(row, database_now(), alive=False)
    assert (view.state, view.open) == ("expired", False)
    assert "No daemon accepted it in time" in view.detail


def test_counts_of_a_result_become_text() -> None:
    assert result_text({"run": 3, "created": 5}) == "run 3, created 5"
    assert result_text(None) == ""


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


def test_page_polls_a_command_until_it_has_ended(root: Client) -> None:
    answer = root.get(HOME, {"command": command("pending").pk})
    body = answer.content.decode()
    assert "No daemon is running" in body
    assert '<meta http-equiv="refresh"' in body  # without scripts
    done = root.get(HOME, {"command": command("done", result={"detail": "A new stream is open."}).pk})
    assert "A new stream is open." in done.content.decode()
    assert '<meta http-equiv="refresh"' not in done.content.decode()


@pytest.mark.parametrize("wrong", ["x", "-1", "9" * 30, "999"])
def test_invalid_command_number_is_ignored(root: Client, wrong: str) -> None:
    assert root.get(HOME, {"command": wrong}).status_code == 200


def test_page_shows_not_running_after_a_crash(root: Client) -> None:
    WebSocketState.objects.create(pk=1, connected=True, state="live", disconnect_reason="")
    body = root.get(HOME).content.decode()
    assert "No daemon has run yet." in body and "Start manage.py runsync." in body
    assert "Connected and in sync" not in body
    acquire("host:1")
    assert "Connected and in sync" in root.get(HOME).content.decode()


def test_page_shows_the_disconnect_reason_and_the_lease_owner(root: Client) -> None:
    acquire("host:1")
    WebSocketState.objects.create(
        pk=1, state="reconnecting", disconnect_reason="the peer <b>went</b>", next_ws_attempt_at=database_now()
    )
    body = root.get(HOME).content.decode()
    assert '<span class="mm-why"><bdi>the peer &lt;b&gt;went&lt;/b&gt;</bdi></span>' in body
    assert "host:1" in body
