"""One judgement: the worst check first, its cause, what to do; and one log line when it changes."""

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon import publisher
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.lease import acquire
from marketplace_sync.mirror.write_probe import WriteTrouble
from marketplace_sync.models import Command, LeaseRow, SyncRun, WebSocketState
from marketplace_sync.monitoring import judgement
from marketplace_sync.monitoring.facts import Facts, read_facts
from marketplace_sync.monitoring.health import judge
from marketplace_sync.monitoring.last_reported import LastReported
from marketplace_sync.monitoring.report import Health, Report, degraded, healthy, unhealthy
from marketplace_sync.tests.database.test_monitoring_health import ago, daemon_metrics, facts
from marketplace_sync.tests.support.admin_rows import held_run, person
from marketplace_sync.tests.support.harness import age_the_lease, marketplace, mirror
from marketplace_sync.tests.support.scrapes import forget_answers

CONFIG = SyncConfig()
State = WebSocketState.State


def checks(given: Facts) -> dict[str, tuple[Health, str, str]]:
    """Return the checks in order, in the words that people read."""
    return {name: (check.status, check.reason, check.do) for name, check in judge(given, CONFIG).worst_first()}


def text_of(given: Facts) -> str:
    return " ".join(f"{reason} {do}" for _, reason, do in checks(given).values())


@given(st.lists(st.sampled_from([healthy("a"), degraded("b"), unhealthy("c")]), min_size=1, max_size=8))
def test_the_worst_check_comes_first_and_a_cause_before_its_consequences(given: list[Any]) -> None:
    report = Report({str(number): check for number, check in enumerate(given)})
    order = [check.status for _, check in report.worst_first()]
    assert order == sorted(order, key=list(Health).index, reverse=True)
    assert order[0] is report.status
    for status in Health:
        same = [int(name) for name, check in report.worst_first() if check.status is status]
        assert same == sorted(same)
    assert list(report.as_json()["checks"]) == [name for name, _ in report.worst_first()]  # type: ignore[call-overload]


def test_the_worst_check_always_has_advice() -> None:
    for each in (
        facts(alive=False, standby=0), facts(alive=False), facts(state=State.SUSPENDED), facts(held_removals=5),
        facts(daemon_text=daemon_metrics(api=1)), facts(daemon_text=daemon_metrics(lag=61)),
        facts(dead_letters_last_hour=100),
        facts(failures=3, failing_since=ago(minutes=5)),
    ):  # fmt: skip
        worst = judge(each, CONFIG).problems()[0][1]
        assert worst.do, worst.reason


def test_locked_database_comes_first_and_nobody_is_advised_to_start_a_daemon() -> None:
    given = facts(alive=False, standby=0, write_trouble=WriteTrouble())
    given = replace(given, status=replace(given.status, daemon="host:1", heartbeat_at=ago(seconds=95)))
    report = checks(given)
    assert next(iter(report)) == "database"
    assert report["database"][0] is Health.UNHEALTHY and "locked for writing" in report["database"][1]
    assert "95 s" in report["daemon"][1] and "may be running and waiting" in report["daemon"][1]
    assert "Start" not in text_of(given)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (WriteTrouble(read_only=True), "read-only"),
        (WriteTrouble(session=4711, seconds=3700.0), "4711"),
        (WriteTrouble(session=4711), "4711"),
    ],
)
def test_database_check_names_why_nothing_can_be_written(trouble: WriteTrouble, words: str) -> None:
    assert words in checks(facts(alive=False, write_trouble=trouble))["database"][1]


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (State.POLLING, daemon_metrics(api=1, stream=1)),
        (State.RECONNECTING, daemon_metrics()),
        (State.SUSPENDED, daemon_metrics()),
    ],
)
def test_no_check_claims_that_polling_helps_while_full_syncs_fail(state: str, refused: str) -> None:
    given = facts(
        state=state, fallback_to_polling=True, daemon_text=refused, failures=7, failing_since=ago(minutes=40),
        clean_sync_at=ago(minutes=41),
    )  # fmt: skip
    report = text_of(given)
    assert "Full syncs fail too, so no changes arrive." in report
    assert "Changes come by full syncs alone" not in report
    assert "could not be read since 2026-01-01 11:20:00Z: 7 full syncs have failed" in report


def test_token_refused_by_the_stream_only_is_degraded() -> None:
    stream, both = facts(daemon_text=daemon_metrics(stream=1)), facts(daemon_text=daemon_metrics(api=1, stream=1))
    assert checks(stream)["token"][0] is Health.DEGRADED and "accepts it over HTTP" in checks(stream)["token"][1]
    assert checks(both)["token"][0] is Health.UNHEALTHY and "over HTTP" in checks(both)["token"][1]
    assert next(iter(checks(both))) == "token"
    # A new token would be refused as well, where it is sent in the wrong way.
    assert "ATOM_SAAS_WS_AUTH" in text_of(stream) and "Set a new" not in text_of(stream)
    assert "Set a new ATOM_SAAS_API_TOKEN" in text_of(both)


def test_nothing_is_retried_without_a_daemon() -> None:
    given = facts(alive=False, standby=0, failures=2, failing_since=ago(minutes=3))
    report = text_of(given)
    assert "No daemon runs, so nothing is retried." in report
    assert "The daemon retries" not in report
    assert "The daemon retries." in text_of(facts(failures=2, failing_since=ago(minutes=3)))


def test_stopped_crashed_and_never_started_daemons_have_different_reasons() -> None:
    stopped = facts(alive=False, standby=0)
    assert "was stopped" in checks(stopped)["daemon"][1]
    dead = replace(stopped, status=replace(stopped.status, daemon="host:1", heartbeat_at=ago(seconds=40)))
    assert "sent no heartbeat for 40 s. It has crashed" in checks(dead)["daemon"][1]
    assert "No daemon has run yet" in checks(replace(stopped, epoch=0))["daemon"][1]
    ahead = replace(dead, status=replace(dead.status, heartbeat_at=None, ahead_seconds=3600.0))
    assert "60 min ahead of the database's clock" in checks(ahead)["daemon"][1]


def test_live_mirror_with_removals_on_hold_is_degraded() -> None:
    report = judge(facts(held_removals=4236, held_runs=1), CONFIG)
    assert report.status is Health.DEGRADED
    assert report.problems()[0][0] == "removals" and "4,236 removals are on hold" in report.problems()[0][1].reason


def test_a_long_wait_for_the_next_attempt_suggests_a_reconnect() -> None:
    given = facts(state=State.POLLING, fallback_to_polling=True)
    given.status.row.next_ws_attempt_at = ago(minutes=-59)
    _, reason, do = checks(given)["connection"]
    assert "at 2026-01-01 12:59:00Z" in reason and "reconnect" in do


def test_clean_sync_dated_ahead_does_not_count_as_recent() -> None:
    assert checks(facts(clean_sync_ahead=True))["sync"][0] is Health.DEGRADED
    assert checks(facts(clean_sync_ahead=True, clean_sync_at=ago(days=2)))["sync"][0] is Health.UNHEALTHY
    assert checks(facts(clean_sync_ahead=True, clean_sync_at=None, first_sync_at=None))["sync"][0] is Health.DEGRADED


@pytest.mark.django_db
def test_failures_are_counted_since_the_last_successful_read() -> None:
    at = database_now() - timedelta(hours=1)

    def run(state: str, minutes: int, **columns: Any) -> None:
        begun = at + timedelta(minutes=minutes)
        SyncRun.objects.create(reason="poll", state=state, started_at=begun, finished_at=begun, **columns)

    run("failed", 0)
    run("done", 1, is_clean=True)
    assert (read_facts().failures, read_facts().failing_since) == (0, None)
    run("failed", 2)
    run("interrupted", 3)
    run("failed", 4, error="HTTP 503")
    found = read_facts()
    assert (found.failures, found.failing_since, found.failure) == (2, at + timedelta(minutes=2), "HTTP 503")
    SyncRun.objects.create(reason="poll", state="running", started_at=at)
    assert read_facts().failures == 2


# The log.


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.msg["status"]) for record in caplog.records
            if isinstance(record.msg, dict) and record.msg["event"] == "health_changed"]  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_probes_log_one_line_per_change_and_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(judgement, "_last_problems", LastReported[tuple[str, ...]](()))
    caplog.set_level(logging.INFO)
    for _ in range(20):
        forget_answers()
        assert Client().get("/health/sync").status_code == 503
    acquire("host:1")
    for _ in range(20):
        forget_answers()
        assert Client().get("/health/sync").status_code == 200
    assert lines(caplog) == ["unhealthy", "degraded"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [record for record in caplog.records if record.name.startswith("django.request")] == []


def test_unreachable_database_is_logged_once_per_probe(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_database: None, settings: Any
) -> None:
    settings.METRICS_PUBLIC = "true"
    monkeypatch.setattr(judgement, "_last_problems", LastReported[tuple[str, ...]](()))
    for module in ("readiness._database_error", "views._metrics_error"):
        monkeypatch.setattr(f"marketplace_sync.monitoring.{module}", LastReported(""))
    for _ in range(5):
        forget_answers()
        for path in ("/health/sync", "/health/ready", "/metrics"):
            assert Client().get(path).status_code == 503
    events = sorted(record.msg["event"] for record in caplog.records if isinstance(record.msg, dict))
    assert events == ["health_changed", "metrics_without_database", "not_ready"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# The pages show the same.


@pytest.fixture
def root(client: Client, db: None) -> Client:
    client.force_login(person("root", superuser=True))
    return client


PAGES = ["/admin/", "/admin/overview/now/", "/admin/marketplace_sync/websocketstate/"]


def daemon(state: str, **columns: Any) -> None:
    now = timezone.now()
    LeaseRow.objects.update_or_create(pk=1, defaults={"holder": "here:1", "renewed_at": now, "epoch": 1})
    WebSocketState.objects.update_or_create(pk=1, defaults={"state": state, "state_since": now, **columns})


@pytest.mark.parametrize("address", PAGES)
def test_pages_and_health_show_the_same_problems(root: Client, address: str) -> None:
    daemon("polling", fallback_to_polling=True, next_ws_attempt_at=timezone.now() + timedelta(minutes=59))
    at = timezone.now() - timedelta(hours=2)
    SyncRun.objects.create(reason="poll", state="failed", started_at=at, finished_at=at, error="the <b>reason</b>")
    run = held_run("a", "b")
    SyncRun.objects.filter(pk=run.pk).update(started_at=at, finished_at=at)
    forget_answers()
    report = json.loads(Client().get("/health/sync").content)
    body = root.get(address, follow=True).content.decode()
    for check in report["checks"].values():
        if check["status"] != "healthy":
            assert check["reason"].replace("'", "&#x27;") in body
            assert check.get("do", "").replace("'", "&#x27;") in body
    assert f">{report['status']}<" in body
    assert "kept by polling" not in body
    assert "<b>reason</b>" not in body


@pytest.mark.parametrize("address", PAGES)
def test_pages_show_a_crashed_daemon_once(root: Client, address: str) -> None:
    daemon("live", connected=True)
    age_the_lease(60)
    body = root.get(address, follow=True).content.decode()
    assert "Start manage.py runsync" in body
    assert "no daemon reports it" not in body


@pytest.mark.parametrize("address", PAGES)
def test_pages_are_not_green_while_removals_are_on_hold(root: Client, address: str) -> None:
    daemon("live", connected=True)
    held_run("a", "b", "c")
    body = root.get(address, follow=True).content.decode()
    assert ">degraded<" in body and "3 removals are on hold" in body
    assert "mm-hero mm-is-good" not in body


# With a real daemon.


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("trouble", ["token", "away"])
async def test_mirror_that_cannot_read_reports_the_cause(monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    monkeypatch.setattr(publisher, "EVERY_SECONDS", 0.05)
    async with marketplace() as server:
        async with mirror(server, fallback_seconds=60.0) as running:
            await running.until_state("live")
            if trouble == "token":
                server.token = server.api.token = "22222222-2222-4333-8444-555555555555"
            else:
                server.faults.add("http-500")
                server.faults.add("refuse")
            await server.drop_connections()
            await running.command(Command.Action.SYNC)
            report: dict[str, Any] = {}

            async def reported() -> bool:
                report.update(await running.ask(asked_health))
                return report["status"] != "healthy" and report["checks"]["sync"].get("failures", 0) >= 1

            await running.until(reported, f"the judgement names the problem: {report}")
            body = json.dumps(report)
            assert "could not be read since" in body and "The daemon retries." in body
            assert "no changes arrive" in body
            assert "Changes come by full syncs alone" not in body
            if trouble == "token":
                assert next(iter(report["checks"])) == "token"
                assert "nothing can be read" in report["checks"]["token"]["reason"]


def asked_health() -> dict[str, Any]:
    forget_answers()
    report: dict[str, Any] = json.loads(Client().get("/health/sync").content)
    return report
