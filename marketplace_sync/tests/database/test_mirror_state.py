"""The state row beside the release before, which calls the state `suspended` by its old name, `resting`."""

import pytest
from django.db import connection

from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.state import save_state
from marketplace_sync.mirror.status import freshness, status
from marketplace_sync.models import WebSocketState
from marketplace_sync.monitoring.judgement import judgement

pytestmark = pytest.mark.django_db

SUSPENDED = WebSocketState.State.SUSPENDED


def stored_state() -> str:
    """Return the value in the column itself."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT state FROM marketplace_sync_websocketstate")
        return str(cursor.fetchone()[0])


def store_state(value: str) -> None:
    """Write the value into the column itself, as the daemon of another release does."""
    acquire("daemon:1")
    WebSocketState.objects.create(pk=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE marketplace_sync_websocketstate SET state = %s", [value])


@pytest.mark.parametrize("value", ["resting", "suspended"])
def test_the_old_and_the_new_name_are_both_read_as_suspended(value: str) -> None:
    store_state(value)
    assert status().row.state == SUSPENDED == "suspended"
    assert freshness().state == "suspended"
    assert WebSocketState.objects.values_list("state", flat=True).get() == "suspended"
    assert str(WebSocketState.objects.get()) == "Suspended"
    assert judgement().report.checks["connection"].figures["state"] == "suspended"


def test_a_row_of_the_release_before_is_found_by_the_new_name() -> None:
    store_state("resting")
    assert WebSocketState.objects.filter(state=SUSPENDED).exists()
    assert not WebSocketState.objects.exclude(state=SUSPENDED).exists()


def test_suspended_is_stored_by_the_name_that_the_release_before_knows() -> None:
    lease = acquire("daemon:1")
    WebSocketState.objects.create(pk=1)
    save_state(lease, {"state": SUSPENDED}, {})
    assert stored_state() == "resting"
    WebSocketState.objects.get().save()
    assert stored_state() == "resting"


def test_other_states_are_stored_as_they_are_named() -> None:
    lease = acquire("daemon:1")
    WebSocketState.objects.create(pk=1)
    for state in WebSocketState.State:
        save_state(lease, {"state": state}, {})
        assert stored_state() == ("resting" if state is SUSPENDED else state)
        assert status().row.state == state


def test_a_state_that_stays_suspended_keeps_its_time() -> None:
    lease = acquire("daemon:1")
    WebSocketState.objects.create(pk=1)
    save_state(lease, {"state": SUSPENDED}, {})
    since = WebSocketState.objects.get().state_since
    save_state(lease, {"state": SUSPENDED}, {})
    assert WebSocketState.objects.get().state_since == since
