"""`manage.py mirrorstatus`: ten lines, or JSON, and an exit status that a script can use."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.state import save_state
from marketplace_sync.models import DaemonMetrics, DeadLetter, LeaseRow, SyncRun, WebSocketState
from marketplace_sync.tests.database.test_monitoring_health import daemon_metrics
from marketplace_sync.tests.support.admin_rows import dead_letter, fill, held_run
from marketplace_sync.tests.support.harness import age_the_lease

pytestmark = pytest.mark.django_db


def mirrorstatus(*arguments: str) -> tuple[int, str, str]:
    """Return the exit status, stdout and stderr."""
    out, err = StringIO(), StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("mirrorstatus", *arguments, stdout=out, stderr=err, no_color=True)
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def a_healthy_mirror() -> None:
    fill(3)
    SyncRun.objects.all().delete()
    lease = acquire("host:1")
    at = database_now()
    SyncRun.objects.create(reason="poll", state="done", is_clean=True, started_at=at, finished_at=at)
    DeadLetter.objects.all().delete()
    WebSocketState.objects.get_or_create(pk=1)
    save_state(lease, {"state": "live", "connected": True}, {})
    DaemonMetrics.objects.update_or_create(
        pk=1, defaults={"epoch": lease.epoch, "text": daemon_metrics(), "written_at": timezone.now()}
    )


def test_healthy_mirror_exits_0() -> None:
    a_healthy_mirror()
    status, out, err = mirrorstatus()
    assert (status, err) == (0, "")
    assert out.startswith("HEALTHY: ")
    assert "live, connected" in out and "host:1" in out and "3 skills" in out
    assert len(out.splitlines()) <= 10


def test_removals_that_wait_for_approval_exit_1() -> None:
    a_healthy_mirror()
    held_run("a", "b", "c")
    status, out, _ = mirrorstatus()
    assert status == 1
    assert out.startswith("DEGRADED: 3 removals are on hold")
    assert "3 removals on hold" in out


def test_dead_daemon_exits_2_with_the_cause_first_in_ten_lines() -> None:
    a_healthy_mirror()
    age_the_lease(3600)
    held_run("a")
    for number in range(3):
        dead_letter(number)
    at = database_now() - timedelta(days=3)
    SyncRun.objects.update(is_clean=False)
    SyncRun.objects.create(reason="poll", state="failed", started_at=at, finished_at=at, error="HTTP 503\x1b[31m")
    status, out, _ = mirrorstatus()
    assert status == 2
    assert out.startswith("UNHEALTHY: The daemon has sent no heartbeat for 60 min")
    assert "not_running, not connected" in out
    assert len(out.splitlines()) <= 10
    assert "\x1b" not in out


def test_heartbeat_ahead_of_the_clock_exits_2() -> None:
    a_healthy_mirror()
    LeaseRow.objects.update(renewed_at=database_now() + timedelta(hours=1))
    status, out, _ = mirrorstatus()
    assert status == 2
    assert "ahead of the database's clock" in out


def test_json_contains_everything() -> None:
    a_healthy_mirror()
    age_the_lease(60)
    status, out, _ = mirrorstatus("--json")
    shown = json.loads(out)
    assert status == 2
    assert shown["status"] == "unhealthy" and shown["state"] == "not_running" and shown["connected"] is False
    assert shown["daemon"] | {"heartbeat_at": None} == {
        "alive": False, "name": "host:1", "heartbeat_at": None, "standby": 0,
    }  # fmt: skip
    assert shown["open"] == {
        "commands": shown["open"]["commands"],
        "dead_letters": 0,
        "held_runs": 0,
        "held_removals": 0,
    }
    assert shown["skills"] == 3 and shown["last_run"]["is_clean"] is True
    assert shown["as_of"] is not None and shown["age_seconds"] >= 0
    assert shown["checks"][0]["name"] == "daemon" and shown["checks"][0]["do"]
    assert [check["status"] for check in shown["checks"]][-1] == "healthy"


def test_mirrorstatus_before_the_first_daemon() -> None:
    status, out, _ = mirrorstatus()
    assert status == 2
    assert out.startswith("UNHEALTHY: No daemon has run yet.")
    assert "as of      never" in out


def test_mirrorstatus_only_reads() -> None:
    a_healthy_mirror()
    with CaptureQueriesContext(connection) as asked:
        mirrorstatus()
        mirrorstatus("--json")
    assert asked.captured_queries
    assert [query["sql"] for query in asked if not query["sql"].startswith("SELECT")] == []


def test_unreachable_database_is_one_line_and_exits_2(no_database: None) -> None:
    status, out, err = mirrorstatus()
    assert (status, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert "the database" in err or "there is no database file" in err
    status, out, _ = mirrorstatus("--json")
    assert (status, json.loads(out)["status"]) == (2, "unhealthy")
