"""Health checks: what each of them daemon_metrics when, what they give away, and what a storm of probes costs."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from marketplace_sync.conf import SyncConfig, find_problems
from marketplace_sync.daemon import publisher
from marketplace_sync.mirror.lease import acquire, stand_by
from marketplace_sync.mirror.status import Status
from marketplace_sync.models import DeadLetter, SyncRun, WebSocketState
from marketplace_sync.monitoring import short_cache, views
from marketplace_sync.monitoring.facts import Facts
from marketplace_sync.monitoring.health import judge
from marketplace_sync.monitoring.readiness import Readiness
from marketplace_sync.monitoring.report import Health, Report, degraded, healthy, unhealthy
from marketplace_sync.monitoring.short_cache import ReadTimeoutError, ShortCache
from marketplace_sync.tests.support.harness import marketplace, mirror
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.scrapes import forget_answers

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONFIG = SyncConfig()  # 900 s between two full syncs
TEXT = """\
# TYPE atom_mirror_lag_recent_seconds gauge
atom_mirror_lag_recent_seconds {lag}
# TYPE atom_mirror_token_refused gauge
atom_mirror_token_refused{{interface="stream"}} {stream}
atom_mirror_token_refused{{interface="api"}} {api}
"""
State = WebSocketState.State


@pytest.fixture(autouse=True)
def _clear_cache() -> None:
    forget_answers()


def daemon_metrics(lag: float = 0.0, stream: int = 0, api: int = 0) -> str:
    return TEXT.format(lag=lag, stream=stream, api=api)


def facts(*, alive: bool = True, standby: int = 1, **changes: Any) -> Facts:
    """Return a healthy mirror with these differences: facts, or columns of the state row."""
    columns = {name: changes.pop(name) for name in list(changes) if name in ("state", "fallback_to_polling")}
    row = WebSocketState(**{"state": State.LIVE if alive else State.NOT_RUNNING} | columns)
    fine = Facts(
        now=NOW,
        status=Status(row, alive, "host:1" if alive else "", NOW, standby),
        epoch=1,
        feed_seq=10,
        first_sync_at=NOW - timedelta(days=1),
        clean_sync_at=NOW - timedelta(minutes=5),
        clean_sync_ahead=False,
        failures=0,
        failing_since=None,
        failure="",
        refused_records=0,
        refused_share=0.0,
        held_runs=0,
        held_removals=0,
        open_dead_letters=0,
        dead_letters_last_hour=0,
        open_commands={},
        feed_servers=0,
        feed_clients=0,
        feed_lag=0,
        daemon_text=daemon_metrics() if alive else "",
        daemon_written_at=NOW,
    )
    return replace(fine, **changes)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


CASES: dict[str, tuple[Facts, str, Health]] = {
    "no daemon": (facts(alive=False, standby=0), "daemon", Health.UNHEALTHY),
    "no daemon, one stands by": (facts(alive=False), "daemon", Health.UNHEALTHY),
    "no state without a daemon": (facts(alive=False), "connection", Health.UNHEALTHY),
    "live": (facts(), "connection", Health.HEALTHY),
    "connecting": (facts(state=State.CONNECTING), "connection", Health.HEALTHY),
    "catching up": (facts(state=State.CATCHING_UP), "connection", Health.HEALTHY),
    "reconnecting": (facts(state=State.RECONNECTING), "connection", Health.DEGRADED),
    "polling as a fallback": (facts(state=State.POLLING, fallback_to_polling=True), "connection", Health.DEGRADED),
    "polling by the settings": (facts(state=State.POLLING), "connection", Health.HEALTHY),
    "suspended": (facts(state=State.SUSPENDED, fallback_to_polling=True), "connection", Health.DEGRADED),
    "disabled by a person": (facts(state=State.DISABLED), "connection", Health.DEGRADED),
    "a clean sync three intervals ago": (facts(clean_sync_at=ago(seconds=2700)), "sync", Health.HEALTHY),
    "a clean sync longer ago": (facts(clean_sync_at=ago(seconds=2701)), "sync", Health.DEGRADED),
    "a clean sync twelve intervals ago": (facts(clean_sync_at=ago(seconds=10_800)), "sync", Health.DEGRADED),
    "a clean sync far too long ago": (facts(clean_sync_at=ago(seconds=10_801)), "sync", Health.UNHEALTHY),
    "the last sync failed": (facts(failures=1, failing_since=ago(seconds=30)), "sync", Health.DEGRADED),
    "no sync yet": (facts(clean_sync_at=None, first_sync_at=None), "sync", Health.DEGRADED),
    "none clean yet": (facts(clean_sync_at=None, first_sync_at=ago(seconds=10)), "sync", Health.DEGRADED),
    "none clean for long": (facts(clean_sync_at=None), "sync", Health.UNHEALTHY),
    "a minute's lag": (facts(daemon_text=daemon_metrics(lag=60)), "lag", Health.HEALTHY),
    "more lag": (facts(daemon_text=daemon_metrics(lag=61)), "lag", Health.DEGRADED),
    "far too much lag": (facts(daemon_text=daemon_metrics(lag=901)), "lag", Health.UNHEALTHY),
    "unknown lag": (facts(daemon_text=""), "lag", Health.DEGRADED),
    "the stream's token refused": (facts(daemon_text=daemon_metrics(stream=1)), "token", Health.DEGRADED),
    "the token refused": (facts(daemon_text=daemon_metrics(api=1, stream=1)), "token", Health.UNHEALTHY),
    "unknown token": (facts(daemon_text=""), "token", Health.DEGRADED),
    "a few dead letters": (facts(dead_letters_last_hour=99, open_dead_letters=5000), "dead_letters", Health.HEALTHY),
    "many dead letters": (facts(dead_letters_last_hour=100), "dead_letters", Health.DEGRADED),
    "a few records refused": (facts(refused_records=1, refused_share=0.0099), "records", Health.HEALTHY),
    "some records refused": (facts(refused_records=1, refused_share=0.01), "records", Health.DEGRADED),
    "many records refused": (facts(refused_records=9, refused_share=0.25), "records", Health.UNHEALTHY),
    "removals on hold": (facts(held_removals=30, held_runs=1), "removals", Health.DEGRADED),
}  # fmt: skip


def test_correct_and_fresh_mirror_is_healthy_in_every_check() -> None:
    report = judge(facts(), CONFIG)
    assert report.status is Health.HEALTHY
    assert {check.status for check in report.checks.values()} == {Health.HEALTHY}
    assert {name for _, name, _ in CASES.values()} | {"database"} == report.checks.keys()


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_reported_by_its_check_and_the_whole(case: str) -> None:
    given, name, expected = CASES[case]
    report = judge(given, CONFIG)
    assert report.checks[name].status is expected
    assert report.checks[name].reason
    order = list(Health)
    assert order.index(report.status) >= order.index(expected)
    if expected is Health.HEALTHY:
        assert report.status is Health.HEALTHY


def test_thresholds_are_settings() -> None:
    late = facts(clean_sync_at=ago(seconds=2000), daemon_text=daemon_metrics(lag=30), dead_letters_last_hour=20)
    assert judge(late, CONFIG).status is Health.HEALTHY
    strict = replace(CONFIG, health_sync_degraded=2, health_lag_degraded=20, health_dead_letters=20)
    assert {name for name, check in judge(late, strict).checks.items() if check.status is Health.DEGRADED} == {
        "sync", "lag", "dead_letters",
    }  # fmt: skip
    stricter = replace(CONFIG, health_sync_degraded=1, health_sync_unhealthy=2, health_lag_unhealthy=25)
    assert {name for name, check in judge(late, stricter).checks.items() if check.status is Health.UNHEALTHY} == {
        "sync", "lag",
    }  # fmt: skip
    never = replace(CONFIG, health_dead_letters=0)
    assert judge(facts(dead_letters_last_hour=10**6), never).status is Health.HEALTHY
    # A longer interval is more patient.
    assert judge(facts(clean_sync_at=ago(hours=10)), replace(CONFIG, sync_interval_seconds=14_400)).status == "healthy"


def test_thresholds_in_the_wrong_order_fail_the_system_check(settings: Any) -> None:
    settings.ATOM_SAAS_API_URL, settings.ATOM_SAAS_API_TOKEN = "https://market.example", "a-token-for-checks"
    settings.HEALTH_SYNC_DEGRADED_INTERVALS, settings.HEALTH_SYNC_UNHEALTHY_INTERVALS = "6", "4"
    settings.HEALTH_LAG_DEGRADED_SECONDS, settings.HEALTH_LAG_UNHEALTHY_SECONDS = "60", "60"
    (fault,) = find_problems(settings)
    assert (fault.level, fault.setting) == ("warning", "HEALTH_SYNC_UNHEALTHY_INTERVALS")
    assert "HEALTH_SYNC_DEGRADED_INTERVALS" in fault.message


def test_mirror_that_is_switched_off_is_healthy() -> None:
    report = judge(facts(alive=False, standby=0), replace(CONFIG, enabled=False))
    assert report.status is Health.HEALTHY
    assert "ATOM_SAAS_ENABLED" in report.checks["daemon"].reason


def test_status_is_that_of_the_worst_check() -> None:
    fine, poor, bad = healthy("a"), degraded("b", count=3), unhealthy("c")
    assert Report({"x": fine, "y": poor}).status is Health.DEGRADED
    assert Report({"x": bad, "y": poor, "z": fine}).status is Health.UNHEALTHY
    assert Report({"y": poor}).as_json() == {
        "status": "degraded", "checks": {"y": {"status": "degraded", "reason": "b", "count": 3}},
    }  # fmt: skip


# Over HTTP.


def asked(path: str) -> tuple[int, dict[str, Any]]:
    forget_answers()
    answer = Client().get(path)
    assert answer["Content-Type"] == "application/json"
    assert "no-store" in answer["Cache-Control"]
    report = json.loads(answer.content)
    assert report.keys() == {"status", "checks"}
    for check in report["checks"].values():
        assert check["status"] in list(Health)
        assert check["reason"]
    return answer.status_code, report


def test_live_answers_without_the_database() -> None:
    # No mark of the database: a query would fail.
    assert asked("/health/live") == (
        200, {"status": "healthy", "checks": {"process": {"status": "healthy", "reason": "The process answers."}}},
    )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_without_a_daemon_the_mirror_is_unhealthy_and_the_process_ready() -> None:
    code, report = asked("/health/sync")
    assert (code, report["status"], report["checks"]["daemon"]["status"]) == (503, "unhealthy", "unhealthy")
    code, report = asked("/health/ready")
    assert (code, report["status"]) == (200, "healthy")
    assert report["checks"].keys() == {"database", "migrations", "channel_layer"}


@pytest.mark.django_db(transaction=True)
async def test_the_health_of_a_real_mirror_and_of_one_whose_daemon_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "EVERY_SECONDS", 0.05)
    async with marketplace() as server:
        async with mirror(server) as running:
            await running.until_state("live")
            report: dict[str, Any] = {}

            async def fine() -> bool:
                report.update((await running.ask(asked, "/health/sync"))[1])
                return report["status"] == "healthy"

            await running.until(fine, f"it is healthy {report}")
            server.faults.add("http-500")
            await running.ask(SyncRun.objects.update, state="failed", is_clean=None)
            code, report = await running.ask(asked, "/health/sync")
            assert (code, report["status"]) == (200, "degraded")
            assert report["checks"]["sync"]["reason"].startswith(
                "No full sync has been clean yet. The marketplace could not"
            )
            server.faults.clear()
        code, report = await ask(asked, "/health/sync")
        assert (code, report["checks"]["daemon"]["status"]) == (503, "unhealthy")


@pytest.mark.django_db(transaction=True)
def test_health_without_a_login_names_no_host_and_quotes_nothing() -> None:
    acquire("db-7.internal:4711")
    stand_by("db-8.internal:4712")
    at = timezone.now()
    WebSocketState.objects.update_or_create(
        pk=1, defaults={"state": State.SUSPENDED, "disconnect_reason": "closed (1008): <b>/srv/market</b>"}
    )
    SyncRun.objects.create(
        reason="poll", state="failed", started_at=at, finished_at=at, error="TLS: not valid for market.internal"
    )
    DeadLetter.objects.create(
        source="stream", code="missing", reason="required", key="a-skill", head=b"{}", size=2, digest="d",
        first_seen_at=at, last_seen_at=at,
    )  # fmt: skip
    for path in ("/health/live", "/health/ready", "/health/sync"):
        shown = json.dumps(asked(path)[1])
        for private in ("internal", "4711", "/srv", "<b>", "market.", "a-skill", connection.settings_dict["NAME"]):
            assert str(private) not in shown


def test_health_and_metrics_report_a_missing_database(no_database: None, settings: Any) -> None:
    settings.METRICS_PUBLIC = "true"
    assert asked("/health/live")[0] == 200
    for path in ("/health/ready", "/health/sync"):
        code, report = asked(path)
        assert (code, report["status"]) == (503, "unhealthy")
        check = report["checks"]["database"]
        assert (check["status"], check["reason"]) == ("unhealthy", "The database does not answer.")
        assert "nowhere" not in json.dumps(report)
    answer = Client().get("/metrics")
    assert (answer.status_code, answer.content) == (503, b"# The database does not answer.\n")


@pytest.mark.django_db(transaction=True)
def test_database_without_all_migrations_is_not_ready() -> None:
    table = connection.ops.quote_name("django_migrations")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT max(name) FROM {table} WHERE app = 'marketplace_sync'")
        (newest,) = cursor.fetchone()
        cursor.execute(f"UPDATE {table} SET name = 'x' WHERE app = 'marketplace_sync' AND name = %s", [newest])
    readiness = Readiness()
    try:
        report = readiness.check()
        assert report.status is Health.UNHEALTHY
        assert report.checks["migrations"].as_json()["missing"] == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET name = %s WHERE app = 'marketplace_sync' AND name = 'x'", [newest])
    assert readiness.check().status is Health.HEALTHY
    # Once applied they stay: a probe costs one query.
    with CaptureQueriesContext(connection) as queries:
        assert readiness.check().status is Health.HEALTHY
    assert len(queries) == 1


@pytest.mark.django_db(transaction=True)
def test_a_channel_layer_that_answers_is_healthy(settings: Any, redis_url: str) -> None:
    settings.CHANNEL_LAYERS = redis_layer(redis_url)
    code, report = asked("/health/ready")
    assert (code, report["checks"]["channel_layer"]["reason"]) == (200, "The channel layer answers.")


@pytest.mark.django_db(transaction=True)
def test_unreachable_channel_layer_is_degraded_only(settings: Any) -> None:
    settings.CHANNEL_LAYERS = redis_layer("redis://127.0.0.1:1/0")
    code, report = asked("/health/ready")
    assert (code, report["status"]) == (200, "degraded")
    assert report["checks"]["channel_layer"]["status"] == "degraded"


def redis_layer(url: str) -> dict[str, Any]:
    layer = "channels_redis.pubsub.RedisPubSubChannelLayer"
    return {"default": {"BACKEND": layer, "CONFIG": {"hosts": [url]}}}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health/sync"])
@pytest.mark.django_db(transaction=True)
def test_health_is_read_only(path: str) -> None:
    assert Client().post(path).status_code == 405
    assert Client().head(path).status_code in (200, 503)


# A storm of probes.


@pytest.mark.django_db(transaction=True)
def test_many_probes_read_the_database_once() -> None:
    forget_answers()
    client = Client()
    client.get("/health/sync")
    with CaptureQueriesContext(connection) as queries:
        for _ in range(50):
            client.get("/health/sync")
    assert len(queries) < 20 * 2  # one look, or a second where a second has passed


def test_many_threads_share_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_cache, "MAX_AGE_SECONDS", 60.0)
    looks: list[int] = []
    begun = threading.Barrier(8)

    def look() -> int:
        looks.append(1)
        return len(looks)

    answer = ShortCache(look)

    def probe() -> int:
        begun.wait()
        return answer()

    with ThreadPoolExecutor(8) as pool:
        assert {future.result() for future in [pool.submit(probe) for _ in range(8)]} == {1}
    answer.clear()
    assert answer() == 2


def test_outdated_cache_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_cache, "MAX_AGE_SECONDS", 0.0)
    counted = iter(range(10))
    answer = ShortCache(lambda: next(counted))
    assert [answer(), answer()] == [0, 1]


def test_waiting_for_a_hanging_read_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_cache, "LOCK_TIMEOUT_SECONDS", 0.05)
    hanging, let_go = threading.Event(), threading.Event()

    def hang() -> Report:
        hanging.set()
        let_go.wait()
        return Report({"x": healthy("y")})

    answer: Callable[[], Report] = ShortCache(hang)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(answer)
        hanging.wait()
        with pytest.raises(ReadTimeoutError):
            answer()
        monkeypatch.setattr(views, "sync_health", answer)
        report = Client().get("/health/sync")
        assert (report.status_code, json.loads(report.content)["status"]) == (503, "unhealthy")
        let_go.set()
        assert first.result().status is Health.HEALTHY
