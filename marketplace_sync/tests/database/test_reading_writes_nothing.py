"""Reading works while nothing can be written: the database is read-only, or another program keeps it locked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from marketplace_sync.api import authentication, throttles
from marketplace_sync.governance import keys
from marketplace_sync.governance.actions import RevokeKey
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.live.hub import Hub
from marketplace_sync.mirror.dialects import dialect
from marketplace_sync.models import AgentKey, AuditRow, Category, Command, DeadLetter, LeaseRow, Skill, SyncRun
from marketplace_sync.tests.database.test_admin_pages import pages
from marketplace_sync.tests.support.admin_rows import fill
from marketplace_sync.tests.support.api_actors import ApiClient, new_key, put
from marketplace_sync.tests.support.live_feed import QUICK, Visitor, agent_key, ask, bearer

pytestmark = pytest.mark.django_db(transaction=True)

READS = (
    "/api/skills/", "/api/skills/?cursor=", "/api/skills/?search=s1", "/api/skills/s1/", "/api/skills/absent/",
    "/api/categories/", "/api/categories/c/", "/api/changes/", "/api/schema/", "/api/docs/", "/metrics",
)  # fmt: skip
MANAGED = (
    "/api/admin/websocket/status/", "/api/admin/sync/status/", "/api/admin/sync/runs/", "/api/admin/dead-letters/",
    "/api/admin/audit/",
)  # fmt: skip


@contextmanager
def read_only() -> Iterator[None]:
    """Any write on this test's connection fails."""
    on, off = {
        "sqlite": ("PRAGMA query_only = 1", "PRAGMA query_only = 0"),
        "postgresql": ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(on)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(off)


# What another program may keep_locked. On SQLite a transaction that writes locks all tables.
LOCKS: dict[str, tuple[str, ...]] = {
    "sqlite": ("UPDATE marketplace_sync_lease SET epoch = epoch",),
    "postgresql": (
        "SELECT * FROM marketplace_sync_agentkey FOR UPDATE",
        "SELECT * FROM marketplace_sync_lease FOR UPDATE",
        "LOCK TABLE marketplace_sync_agentkey, marketplace_sync_auditrow, django_session IN EXCLUSIVE MODE",
    ),
}


@contextmanager
def locked() -> Iterator[None]:
    """Another program has written to all that a read could want to write to, and does not commit."""
    locked_event, release = threading.Event(), threading.Event()

    def keep_locked() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                for lock in LOCKS[connection.vendor]:
                    cursor.execute(lock)
                locked_event.set()
                release.wait(60)
        finally:
            connection.close()

    holder = threading.Thread(target=keep_locked)
    holder.start()
    try:
        assert locked_event.wait(30)
        yield
    finally:
        release.set()
        holder.join()


@pytest.fixture(params=[read_only, locked], ids=["read-only", "locked"])
def trouble(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Either way in which nothing can be written."""
    return request.param


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "failed_keys", SlidingWindow(60, 60.0))
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))
    # Any wait for a lock would last longer than a test may take.
    LeaseRow.objects.update_or_create(pk=1)


@contextmanager
def within_seconds() -> Iterator[None]:
    """Nobody waits for a lock, which would take 20 s."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 10


def test_key_can_read_everything(trouble: Callable[[], Any]) -> None:
    key, raw = new_key("reader", Maturity.AUTONOMOUS)
    put("s1", category="c")
    with trouble(), within_seconds():
        for path in (*READS, *MANAGED):
            answer = ApiClient(raw).get(path)
            assert answer.status_code == (404 if "absent" in path else 200), (path, answer.content)
    key.refresh_from_db()
    assert key.last_used_at is None
    keys.notes._not_before = 0.0  # the second after which it is tried again is over
    assert ApiClient(raw).get("/api/skills/").status_code == 200
    key.refresh_from_db()
    assert key.last_used_at is not None


def test_login_can_read_the_api_and_the_admin(trouble: Callable[[], Any]) -> None:
    fill(1)
    put("s1", category="c")
    root = get_user_model().objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(root)
    client.get("/admin/")  # what is made once, such as content types, is there
    urls = [*pages(), "/admin/", "/admin/auth/user/", f"/admin/auth/user/{root.pk}/change/"]
    assert len(urls) > 15
    with trouble(), within_seconds():
        for path in (*READS, *MANAGED):
            answer = client.get(path)
            assert answer.status_code == (404 if "absent" in path else 200), (path, answer.content)
        for path in urls:
            assert client.get(path).status_code in (200, 302), path


async def test_live_feed_accepts_a_key(trouble: Callable[[], Any]) -> None:
    raw = await ask(agent_key)

    async def visit() -> None:
        async with Visitor(Hub(QUICK), "after=0", bearer(raw)) as visitor:
            assert await visitor.message() == {"type": "ready", "seq": 0}

    if trouble is locked:
        with locked(), within_seconds():
            await visit()
        return
    # The thread closes its database connection when it is idle, so each connection is set up again.
    from django.db.backends.signals import connection_created

    def set_up(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "PRAGMA query_only = 1" if connection.vendor == "sqlite" else "SET default_transaction_read_only = on"
            )

    connection_created.connect(set_up)
    try:
        with within_seconds():
            await visit()
    finally:
        connection_created.disconnect(set_up)


def test_refused_key_is_audited_later(trouble: Callable[[], Any]) -> None:
    key, raw = new_key("gone", Maturity.AUTONOMOUS)
    other = new_key("other", Maturity.STUDENT)[1]
    RevokeKey(key.pk, actor=COMMAND_LINE).perform()
    with trouble(), within_seconds():
        for _ in range(3):
            assert ApiClient(raw).get("/api/skills/").status_code == 401
    assert not AuditRow.objects.filter(verb="use_key").exists()
    keys.notes._not_before = 0.0
    # The next key writes it.
    assert ApiClient(other).get("/api/skills/").status_code == 200
    (row,) = AuditRow.objects.filter(verb="use_key")
    assert (row.actor, row.outcome, row.details["why"]) == ("agent:gone", "refused", "revoked")
    assert AgentKey.objects.get(pk=key.pk).last_refused_at is not None


def test_ended_session_is_refused_without_a_write(trouble: Callable[[], Any]) -> None:
    user = get_user_model().objects.create_user("ada", password="x")
    client = ApiClient()
    client.force_login(user)
    assert client.get("/api/skills/").status_code == 200
    user.set_password("another")
    user.save()
    with trouble(), within_seconds():
        answer = client.get("/api/skills/")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


async def test_live_feed_refuses_an_ended_session_without_a_write() -> None:
    def stale() -> list[tuple[str, str]]:
        user = get_user_model().objects.create_user("ada", password="x")
        client = Client()
        client.force_login(user)
        user.set_password("another")
        user.save()
        return [("Cookie", f"sessionid={client.cookies['sessionid'].value}"), ("Origin", "http://127.0.0.1:8000")]

    headers = await ask(stale)
    with locked(), within_seconds():
        visitor = Visitor(Hub(QUICK), "", headers)
        assert (await visitor.connected())["type"] == "websocket.accept"
        assert (await visitor.closed())[0] == 4401


def test_refused_post_is_audited() -> None:
    raw = new_key("student", Maturity.STUDENT)[1]
    assert ApiClient(raw).ask("/api/admin/sync/trigger/").status_code == 403
    assert AuditRow.objects.filter(outcome="refused", actor="agent:student").count() == 1


def test_pending_audit_notes_are_bounded_and_keep_the_latest_use() -> None:
    key, _ = new_key("busy", Maturity.STUDENT)
    now = timezone.now()
    with read_only():
        for number in range(2000):
            keys.notes.used(AgentKey(pk=key.pk + number), now)
        keys.notes.used(key, now + timedelta(seconds=1))
    assert len(keys.notes._used) == 1000
    keys.notes._not_before = 0.0
    keys.notes.write()
    key.refresh_from_db()
    assert key.last_used_at == now + timedelta(seconds=1)


def test_no_wait_restores_the_lock_timeout() -> None:
    def patience() -> object:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout" if connection.vendor == "sqlite" else "SHOW lock_timeout")
            return cursor.fetchone()[0]

    before = patience()
    with dialect().without_waiting():
        assert patience() != before
        Category.objects.create(name="c")
    assert patience() == before
    with transaction.atomic():
        with dialect().without_waiting():
            Category.objects.create(name="d")
        assert patience() == before
    with locked(), within_seconds():
        with pytest.raises(DatabaseError):
            with dialect().without_waiting():
                AgentKey.objects.update(created_by="x")
                LeaseRow.objects.filter(pk=1).update(epoch=9)
        assert patience() == before
    assert sorted(Category.objects.values_list("name", flat=True)) == ["c", "d"]
    assert [model.objects.count() for model in (Skill, Command, DeadLetter, SyncRun)] == [0, 0, 0, 0]
