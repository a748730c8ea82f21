"""The stream's buttons: only those with an effect are shown, and those without a daemon are disabled."""

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
    """Return the labels of the enabled and of the disabled buttons."""
    body = client.get(address).content.decode()
    can = set(re.findall(r'<summary class="mm-button[^"]*">([^<]+)</summary>', body))
    return can, set(
        re.findall(r'<button type="button" class="mm-button" disabled title="[^"]+">([^<]+)</button>', body)
    )


def pages() -> list[str]:
    websocket = "admin:marketplace_sync_websocketstate"
    again = reverse(f"{websocket}_buttons")
    return [reverse("admin:index"), reverse(f"{websocket}_changelist"), again, f"{again}?overview=1"]


def test_without_a_daemon_all_buttons_are_disabled_with_the_reason(root: Client) -> None:
    for address in pages():
        assert buttons(root, address) == (set(), {"Reconnect stream", "Sync now", "Disable stream"}), address
        assert "No daemon is running, so the command would expire" in root.get(address).content.decode()


def test_enabled_stream_has_no_enable_button(root: Client) -> None:
    acquire("test:1")
    for address in pages():
        assert buttons(root, address) == ({"Reconnect stream", "Sync now", "Disable stream"}, set()), address


def test_disabled_stream_can_be_enabled_but_not_reconnected(root: Client) -> None:
    acquire("test:1")
    WebSocketState.objects.update_or_create(pk=1, defaults={"enabled": False})
    for address in pages():
        assert buttons(root, address) == ({"Sync now", "Enable stream"}, {"Reconnect stream"}), address
        assert "Enable it: that opens a new connection." in root.get(address).content.decode()


def test_viewer_has_no_buttons(client: Client) -> None:
    client.force_login(person("viewer"))
    assert buttons(client, reverse("admin:index")) == (set(), set())
    assert client.get(reverse("admin:marketplace_sync_websocketstate_buttons")).status_code == 403
