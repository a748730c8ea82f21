"""Steering by API: bodies, waiting for the daemon's answer, what is shown of it, and limits."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import uvicorn
from django.db import connection, connections
from django.utils import timezone

from marketplace_sync.api import authentication, throttles, waiting
from marketplace_sync.api.status import without_secrets
from marketplace_sync.governance.acceptance import refusal_reason
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.mirror.commands import accept, answer
from marketplace_sync.mirror.lease import Lease, acquire
from marketplace_sync.models import AuditRow, Command, DeadLetter, HeldRemoval, LeaseRow, SyncRun, WebSocketState
from marketplace_sync.tests.support.api_actors import ApiClient, agent, new_key, person

pytestmark = pytest.mark.django_db(transaction=True)

RECONNECT = "/api/admin/websocket/reconnect/"


@pytest.fixture(autouse=True)
def _fresh_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "failed_keys", SlidingWindow(60, 60.0))
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(100, 1.0))


@pytest.fixture
def client() -> ApiClient:
    return agent()


def dead_letter(**fields: Any) -> DeadLetter:
    now = timezone.now()
    body = {
        "source": "stream", "code": "missing", "reason": "required", "head": b'{"a": "\xff"}', "size": 11,
        "digest": "d", "first_seen_at": now, "last_seen_at": now,
    }  # fmt: skip
    return DeadLetter.objects.create(**body | fields)


def run(state: str = "done", **fields: Any) -> SyncRun:
    now = timezone.now()
    return SyncRun.objects.create(
        reason="poll", state=state, started_at=now, finished_at=None if state == "running" else now, **fields
    )


# The status.


def test_status_has_the_documented_keys_and_no_token(client: ApiClient, settings: Any) -> None:
    settings.ATOM_SAAS_API_URL = "https://api.atomsaas.com"
    settings.ATOM_SAAS_API_TOKEN = "11111111-2222-4333-8444-555555555555"
    response = client.get("/api/admin/websocket/status/")
    assert response.json() == {
        "state": "not_running", "connected": False, "enabled": True, "ws_url": "wss://api.atomsaas.com/ws",
        "last_connected_at": None, "last_message_at": None, "disconnect_reason": "", "reconnect_attempts": 0,
        "consecutive_failures": 0, "fallback_to_polling": False, "fallback_started_at": None,
        "next_ws_attempt_at": None, "rate_limit_messages_per_sec": 100,
        "totals": {"received": 0, "applied": 0, "unchanged": 0, "stale": 0, "rejected": 0, "shed": 0},
        "daemon": {"alive": False, "name": "", "heartbeat_at": None, "standby": 0},
    }  # fmt: skip
    assert b'"rate_limit_messages_per_sec":100,' in response.content


def test_status_is_correct_after_a_crash(client: ApiClient) -> None:
    lease = acquire("host:1")
    WebSocketState.objects.create(pk=1, state="live", connected=True, received=7)
    body = client.get("/api/admin/websocket/status/").json()
    assert (body["state"], body["connected"], body["totals"]["received"]) == ("live", True, 7)
    assert (body["daemon"]["alive"], body["daemon"]["name"]) == (True, lease.holder)
    LeaseRow.objects.update(renewed_at=timezone.now() - timedelta(seconds=20))
    body = client.get("/api/admin/websocket/status/").json()
    assert (body["state"], body["connected"], body["daemon"]["alive"]) == ("not_running", False, False)


def test_status_is_answered_with_invalid_settings(client: ApiClient, settings: Any) -> None:
    settings.ATOM_SAAS_WS_PONG_TIMEOUT = "soon"
    assert client.get("/api/admin/websocket/status/").json()["ws_url"] == ""


def test_urls_are_shown_without_secrets() -> None:
    assert without_secrets("wss://u:p@h:1/ws?token=t#f") == "wss://h:1/ws"


def test_sync_status_lists_the_last_runs_and_the_one_on_hold(client: ApiClient) -> None:
    on_hold = run("held", held_count=2, held_reason="empty")
    failed, running = run("failed", error="503"), run("running")
    body = client.get("/api/admin/sync/status/").json()
    found = {name: body[name]["id"] for name in ("running", "last", "last_done", "held")}
    assert found == {"running": running.pk, "last": failed.pk, "last_done": on_hold.pk, "held": on_hold.pk}
    assert body["runs"] == {"held": 1, "failed": 1, "running": 1}
    assert (body["held"]["held_reason"], body["last"]["error"]) == ("empty", "503")


def test_run_detail_lists_skills_on_hold(client: ApiClient) -> None:
    on_hold = run("held", held_count=2)
    HeldRemoval.objects.bulk_create(HeldRemoval(run=on_hold, skill_id=name) for name in ("b", "a"))
    assert client.get(f"/api/admin/sync/runs/{on_hold.pk}/").json()["held_skill_ids"] == ["a", "b"]
    run()
    listed = client.get("/api/admin/sync/runs/?state=held").json()
    assert [row["id"] for row in listed["results"]] == [on_hold.pk]


# What is asked for.


def test_post_is_answered_with_its_command(client: ApiClient) -> None:
    response = client.ask(RECONNECT, {"reason": " Moving. "})
    assert response.status_code == 202
    body = response.json()
    assert (body["action"], body["state"], body["reason"]) == ("reconnect", "pending", "Moving.")
    assert (body["requested_by"], body["finished_at"], body["result"]) == ("agent:a-autonomous", None, None)
    assert client.get(f"/api/admin/commands/{body['id']}/").json() == body


@pytest.mark.parametrize(
    ("body", "content_type", "code", "field"),
    [
        (b"", "", 202, None), (b"", "text/plain", 202, None), (b"{}", "application/json", 202, None),
        (b'{"reason": ""}', "application/json; charset=utf-8", 202, None),
        (b"{", "application/json", 400, None), (b"[" * 100_000, "application/json", 400, None),
        (b"\xff", "application/json", 400, None), (b"[]", "application/json", 400, "body"),
        (b"null", "application/json", 400, "body"), (b'{"reason": 1}', "application/json", 400, "reason"),
        (b'{"reason": null}', "application/json", 400, "reason"), (b'{"why": "x"}', "application/json", 400, "why"),
        (b'{"reason": "' + b"x" * 1001 + b'"}', "application/json", 400, "reason"),
        (b'{"reason": "\\u0000"}', "application/json", 400, "reason"),
        (b'{"reason": "\\ud800"}', "application/json", 400, "reason"),
        (b"1" * 5000, "application/json", 400, None), (b"reason=x", "application/x-www-form-urlencoded", 415, None),
        (b"reason=x", "text/plain", 415, None), (b"--x", "multipart/form-data; boundary=x", 415, None),
        (b'{"reason": "' + b"x" * 3_000_000 + b'"}', "application/json", 413, None),
    ],
)  # fmt: skip
def test_invalid_body_is_refused(
    client: ApiClient, body: bytes, content_type: str, code: int, field: str | None
) -> None:
    response = client.post(RECONNECT, data=body, content_type=content_type)
    body = response.json()
    assert (response.status_code, body.get("field")) == (code, field), body
    # What can't be asked for is no decision.
    assert AuditRow.objects.filter(verb="reconnect").count() == Command.objects.count() == (1 if code == 202 else 0)


@pytest.mark.parametrize("wait", ["-1", "x", "", "1.5", "9" * 12])
def test_invalid_wait_is_400(client: ApiClient, wait: str) -> None:
    response = client.ask(f"{RECONNECT}?wait={wait}")
    assert (response.status_code, response.json()["field"]) == (400, "wait")
    assert client.ask(f"{RECONNECT}?for=1").json()["field"] == "for"


def test_a_session_without_the_csrf_token_is_refused() -> None:
    client = person(is_superuser=True)
    assert client.post(RECONNECT, content_type="application/json").status_code == 403
    assert client.ask(RECONNECT).status_code == 202


def test_overdue_pending_command_is_shown_as_expired_and_ends_a_wait(client: ApiClient) -> None:
    body = client.ask(RECONNECT).json()
    Command.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    body = client.get(f"/api/admin/commands/{body['id']}/").json()
    assert body["state"] == "expired" and body["finished_at"] and "runsync" in body["result"]["detail"]
    assert waiting.wait_for(Command.objects.get(), 20).state == "pending"


def test_dead_letters_can_be_listed_replayed_and_discarded(client: ApiClient) -> None:
    first, second = dead_letter(), dead_letter(digest="e", source="fetch")
    listed = client.get("/api/admin/dead-letters/").json()
    assert listed["count"] == 2 and "head" not in listed["results"][0]
    assert client.get("/api/admin/dead-letters/?source=fetch").json()["count"] == 1
    assert client.get(f"/api/admin/dead-letters/{first.pk}/").json()["head"] == '{"a": "�"}'
    assert client.ask(f"/api/admin/dead-letters/{first.pk}/replay/").json()["args"] == {"dead_letter": first.pk}
    response = client.ask(f"/api/admin/dead-letters/{second.pk}/discard/", {"reason": "noise"})
    assert (response.status_code, response.json()["state"]) == (200, "discarded")
    assert client.ask(f"/api/admin/dead-letters/{second.pk}/discard/").status_code == 409
    assert client.get("/api/admin/dead-letters/?state=discarded").json()["count"] == 1


def test_audit_log_is_filtered_by_actor_verb_time_and_outcome(client: ApiClient) -> None:
    client.ask(RECONNECT)
    agent(Maturity.STUDENT).ask(RECONNECT)
    path = "/api/admin/audit/"
    refused = client.get(path, {"verb": "reconnect", "allowed": "false"}).json()["results"]
    assert [(row["actor"], row["actual"], row["outcome"]) for row in refused] == [
        ("agent:a-student", "STUDENT", "refused")
    ]
    assert client.get(path, {"actor": "agent:a-autonomous"}).json()["count"] == 1
    assert client.get(path, {"verb": "reconnect", "until": "2020-01-01T00:00:00Z"}).json()["count"] == 0
    assert client.get(path, {"since": "soon"}).json()["field"] == "since"
    assert client.get(path, {"outcome": "maybe"}).json()["field"] == "outcome"
    for method in (client.post, client.put, client.patch, client.delete):
        assert method(path).status_code == 405


def test_bug_is_a_500_in_the_usual_format(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr("marketplace_sync.api.control.connection_status", fail)
    client.raise_request_exception = False
    response = client.get("/api/admin/websocket/status/")
    assert (response.status_code, response.json()["code"]) == (500, "server_error")
    assert "secret" not in response.json()["detail"]


# Limits.


def test_requests_over_the_rate_limit_are_429(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(100, 1.0, lambda: now[0]))
    one, other = agent(Maturity.STUDENT), agent(Maturity.INTERN)
    assert {one.get("/api/categories/").status_code for _ in range(100)} == {200}
    response = one.get("/api/categories/")
    assert (response.status_code, response["Retry-After"], response.json()["code"]) == (429, "1", "throttled")
    assert other.get("/api/categories/").status_code == 200
    now[0] = 1.0
    assert one.get("/api/categories/").status_code == 200


def test_many_invalid_keys_are_429_but_a_valid_key_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(authentication, "failed_keys", SlidingWindow(60, 60.0, lambda: now[0]))
    good, bad = agent(Maturity.STUDENT), ApiClient("wrong")
    assert {bad.get("/api/skills/").status_code for _ in range(60)} == {401}
    response = bad.get("/api/skills/")
    assert (response.status_code, response["Retry-After"]) == (429, "60")
    assert good.get("/api/skills/").status_code == 200
    assert bad.get("/api/skills/", REMOTE_ADDR="127.0.0.2").status_code == 401
    now[0] = 60.0
    assert bad.get("/api/skills/").status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer a b", "Bearer \xff", "bearer x", "Bearer " + "x" * 5000]
)
def test_malformed_key_is_401(header: str) -> None:
    response = ApiClient().get("/api/skills/", headers={"Authorization": header})
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")


def test_sliding_window_forgets_idle_actors() -> None:
    now = [0.0]
    window = SlidingWindow(2, 10.0, lambda: now[0], most_keys=10)
    assert [window.admit("a"), window.admit("a")] == [None, None]
    now[0] = 4.0
    assert window.admit("a") == 6.0
    for number in range(20):
        window.admit(str(number))
    now[0] = 20.0
    assert window.admit("a") is None
    assert len(window._times) == 10


def test_management_lists_run_the_same_number_of_queries_for_any_number_of_rows(client: ApiClient) -> None:
    from django.test.utils import CaptureQueriesContext

    for path, make in (
        ("/api/admin/sync/runs/", lambda n: run()),
        ("/api/admin/dead-letters/", lambda n: dead_letter(digest=str(n))),
        ("/api/admin/audit/", lambda n: client.ask(RECONNECT)),
    ):
        counts = []
        for rows in (range(1), range(1, 12)):
            for number in rows:
                make(number)
            client.get(path)
            with CaptureQueriesContext(connection) as ran:
                assert client.get(path).status_code == 200
            counts.append(len(ran))
        # The key, the count, the page's keys, its rows.
        assert counts == [4, 4], path


# Waiting, through a real server.


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run uvicorn with the project's ASGI application on a free port. Yield its base URL."""
    from atomproject.asgi import application

    # Each request has a thread of its own under ASGI, so a connection that is kept is kept for nobody.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([listening])), name="uvicorn")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


def until(true: Any, what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def finish(command: Command, lease: Lease) -> None:
    """Do as the daemon does."""
    assert accept(lease, command.pk, refusal_reason)
    answer(lease, command.pk, Command.State.DONE, {"detail": "A new stream is open."})


async def test_waiting_request_delays_no_other_and_ends_with_the_answer(server: str) -> None:
    await asyncio.to_thread(waits, server)


def waits(server: str) -> None:
    lease = acquire("host:1")
    headers = {"Authorization": f"Bearer {new_key('waiter', Maturity.AUTONOMOUS)[1]}"}
    answers: list[httpx2.Response] = []

    def ask() -> None:
        with httpx2.Client(base_url=server, headers=headers, timeout=40) as http:
            answers.append(http.post(f"{RECONNECT}?wait=30"))

    threads = [threading.Thread(target=ask) for _ in range(waiting.MAX_WAITERS)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: waiting._waiters._value == 0, "all places are taken")  # type: ignore[attr-defined]
        with httpx2.Client(base_url=server, headers=headers, timeout=10) as http:
            begun = time.monotonic()
            assert http.get("/api/skills/").status_code == 200
            # One request more than may wait is answered immediately with 202.
            ninth = http.post(f"{RECONNECT}?wait=30")
            assert (ninth.status_code, ninth.json()["state"]) == (202, "pending")
            # Before any of those who wait has gone.
            assert not answers and time.monotonic() - begun < 10
        for command in Command.objects.order_by("id"):
            finish(command, lease)
        for thread in threads:
            thread.join(20)
    finally:
        Command.objects.filter(finished_at=None).update(state="failed", finished_at=timezone.now())
        for thread in threads:
            thread.join(20)
        connections.close_all()
    assert [response.status_code for response in answers] == [200] * waiting.MAX_WAITERS
    assert {response.json()["state"] for response in answers} == {"done"}
    assert waiting._waiters._value == waiting.MAX_WAITERS  # type: ignore[attr-defined]


def test_wait_without_an_answer_ends_in_time_with_202(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    response = client.ask(f"{RECONNECT}?wait=1")
    assert (response.status_code, response.json()["state"]) == (202, "pending")


def test_waiting_request_has_no_connection_between_queries(client: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[bool] = []

    def look_away(seconds: float) -> None:
        connected.append(connection.connection is not None)
        finish(Command.objects.get(), acquire("host:1"))

    monkeypatch.setattr(waiting.time, "sleep", look_away)
    response = client.ask(f"{RECONNECT}?wait=99")
    assert (response.status_code, response.json()["state"], connected) == (200, "done", [False])
