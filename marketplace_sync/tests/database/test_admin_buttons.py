"""Buttons in the right state: only what would change something, and nothing that nobody would carry out."""

import re

import pytest
from django.test import Client
from django.urls import reverse

from marketplace_sync.mirror.lease import acquire
from marketplace_sync.models import WebSocketState
from marketplace_sync.tests.support.admin_rows import person

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


def buttons(client: Client, address: str) -> tuple[set[str], set[str]]:
    """The labels that can be pressed, and those that cannot."""
    body = client.get(address).content.decode()
    can = set(re.findall(r'<summary class="mm-button[^"]*">([^<]+)</summary>', body))
    return can, set(
        re.findall(r'<button type="button" class="mm-button" disabled title="[^"]+">([^<]+)</button>', body)
    )


def pages() -> list[str]:
    websocket = "admin:marketplace_sync_websocketstate"
    again = reverse(f"{websocket}_buttons")
    return [reverse("admin:index"), reverse(f"{websocket}_changelist"), again, f"{again}?front=1"]


def test_without_a_daemon_nothing_can_be_pressed_and_the_page_says_why(root: Client) -> None:
    for address in pages():
        assert buttons(root, address) == (set(), {"Reconnect", "Sync now", "Disable"}), address
        assert "No daemon is running, so nobody would carry it out" in root.get(address).content.decode()


def test_while_the_stream_is_enabled_there_is_no_button_that_enables_it(root: Client) -> None:
    acquire("test:1")
    for address in pages():
        assert buttons(root, address) == ({"Reconnect", "Sync now", "Disable"}, set()), address


def test_while_the_stream_is_disabled_it_can_be_enabled_and_not_reconnected(root: Client) -> None:
    acquire("test:1")
    WebSocketState.objects.update_or_create(pk=1, defaults={"enabled": False})
    for address in pages():
        assert buttons(root, address) == ({"Sync now", "Enable"}, {"Reconnect"}), address
        assert "Enable it: that connects at once." in root.get(address).content.decode()


def test_who_may_not_steer_has_no_buttons(client: Client) -> None:
    client.force_login(person("viewer"))
    assert buttons(client, reverse("admin:index")) == (set(), set())
    assert client.get(reverse("admin:marketplace_sync_websocketstate_buttons")).status_code == 403
