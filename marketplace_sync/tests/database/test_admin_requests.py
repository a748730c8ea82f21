"""How requests to the daemon are told: also when there is none to take them on."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from marketplace_sync.admin.requests import said, told
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
        ("pending", False, "pending", "No daemon is running. This expires in", True),
        ("accepted", True, "accepted", "The daemon is at it", True),
        ("accepted", False, "accepted", "No daemon is running", True),
        ("done", False, "done", "A new stream is open.", False),
        ("failed", True, "failed", "A new stream is open.", False),
        ("expired", False, "expired", "A new stream is open.", False),
    ],
)
def test_each_state_is_told_in_words(state: str, alive: bool, shown: str, words: str, is_open: bool) -> None:
    row = command(state, result={"detail": "A new stream is open."})
    view = told(row, database_now(), alive=alive)
    assert (view.state, view.open) == (shown, is_open)
    assert words in view.says


def test_one_past_its_time_has_expired_though_no_daemon_was_there_to_write_so() -> None:
    row = command("pending", expires_at=database_now() - timedelta(seconds=1))
    view = told(row, database_now(), alive=False)
    assert (view.state, view.open) == ("expired", False)
    assert "No daemon took this on in time" in view.says


def test_counts_are_told_in_words() -> None:
    assert said({"run": 3, "created": 5}) == "run 3, created 5"
    assert said(None) == ""


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


def test_a_request_is_followed_on_the_page_until_it_is_answered(root: Client) -> None:
    answer = root.get(HOME, {"request": command("pending").pk})
    body = answer.content.decode()
    assert "No daemon is running" in body
    assert '<meta http-equiv="refresh"' in body  # for who has no scripts
    done = root.get(HOME, {"request": command("done", result={"detail": "A new stream is open."}).pk})
    assert "A new stream is open." in done.content.decode()
    assert '<meta http-equiv="refresh"' not in done.content.decode()


@pytest.mark.parametrize("wrong", ["x", "-1", "9" * 30, "999"])
def test_a_request_that_can_t_be_is_none(root: Client, wrong: str) -> None:
    assert root.get(HOME, {"request": wrong}).status_code == 200


def test_the_page_tells_the_truth_after_a_crash(root: Client) -> None:
    WebSocketState.objects.create(pk=1, connected=True, state="live", disconnect_reason="")
    body = root.get(HOME).content.decode()
    assert "No daemon has run yet." in body and "Start manage.py runsync." in body
    assert "Connected and caught up" not in body
    acquire("host:1")
    assert "Connected and caught up" in root.get(HOME).content.decode()


def test_why_and_the_next_attempt_are_told(root: Client) -> None:
    acquire("host:1")
    WebSocketState.objects.create(
        pk=1, state="reconnecting", disconnect_reason="the peer <b>went</b>", next_ws_attempt_at=database_now()
    )
    body = root.get(HOME).content.decode()
    assert '<span class="mm-why"><bdi>the peer &lt;b&gt;went&lt;/b&gt;</bdi></span>' in body
    assert "host:1" in body
