"""Times are ISO 8601 in UTC, whatever the host project's settings are, from the year 1 to the year 9999."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client, override_settings

from marketplace_sync.api import throttles
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.live.hub import Hub
from marketplace_sync.models import (
    AuditRow,
    Category,
    Command,
    DeadLetter,
    FeedChange,
    LeaseRow,
    Skill,
    SyncRun,
    WebSocketState,
)
from marketplace_sync.tests.database.test_admin_pages import pages
from marketplace_sync.tests.support.admin_rows import fill
from marketplace_sync.tests.support.api_actors import ApiClient, agent
from marketplace_sync.tests.support.live_feed import QUICK, Visitor, agent_key, ask, bearer

pytestmark = pytest.mark.django_db(transaction=True)

EDGES = (datetime(1, 1, 1, tzinfo=UTC), datetime(999, 12, 31, 0, 0, 0, 1, UTC), datetime.max.replace(tzinfo=UTC))
# West and east of Greenwich: each moves one edge out of what Python can count.
ZONES = ("America/Los_Angeles", "Pacific/Auckland")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
READS = (
    "/api/skills/", "/api/skills/?cursor=", "/api/skills/edge/", "/api/categories/", "/api/categories/edge/",
    "/api/changes/", "/api/admin/websocket/status/", "/api/admin/sync/status/", "/api/admin/sync/runs/",
    "/api/admin/sync/runs/1/",
    "/api/admin/dead-letters/", "/api/admin/dead-letters/1/", "/api/admin/audit/", "/api/admin/commands/1/",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))


@pytest.fixture
def client() -> ApiClient:
    return agent()


@pytest.fixture(params=EDGES, ids=lambda edge: edge.isoformat())
def edge(request: pytest.FixtureRequest) -> datetime:
    return set_all_times_to(request.param)


def set_all_times_to(edge: datetime) -> datetime:
    """One row of everything, every time of which is this one."""
    remote = {"remote_created_at": edge, "remote_updated_at": edge}
    category = Category.objects.create(name="edge", **remote)
    Skill.objects.create(skill_id="edge", name="Edge", category=category, rating_at=edge, synced_at=edge, **remote)
    SyncRun.objects.create(pk=1, reason="poll", state="held", started_at=edge, finished_at=edge, held_count=0)
    Command.objects.create(
        pk=1, action="sync", state="done", requested_by="x", requested_at=edge, accepted_at=edge, finished_at=edge,
        expires_at=edge,
    )  # fmt: skip
    DeadLetter.objects.create(
        pk=1, source="stream", code="missing", reason="required", head=b"{", size=1, digest="d", first_seen_at=edge,
        last_seen_at=edge,
    )  # fmt: skip
    AuditRow.objects.create(
        at=edge, actor="user:x", actor_kind="person", verb="reconnect", allowed=True, outcome="performed",
        required="AUTONOMOUS", actual="AUTONOMOUS",
    )  # fmt: skip
    FeedChange.objects.create(seq=1, kind="skill_deleted", key="edge", at=edge, source="stream")
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": 1, "holder": "here:1", "renewed_at": edge})
    times = ("last_connected_at", "last_message_at", "fallback_started_at", "next_ws_attempt_at", "in_sync_at")
    WebSocketState.objects.update_or_create(pk=1, defaults=dict.fromkeys(times, edge))
    return edge


def times_in(data: Any) -> Iterator[tuple[str, str]]:
    """Every time of an answer, with the name that it stands under."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name.endswith("_at") or name == "at":
                yield name, value
            else:
                yield from times_in(value)
    elif isinstance(data, list):
        for each in data:
            yield from times_in(each)


def test_every_time_of_every_answer_is_utc(client: ApiClient, edge: datetime) -> None:
    text = edge.isoformat().replace("+00:00", "Z")
    for zone in ZONES:
        with override_settings(TIME_ZONE=zone, REST_FRAMEWORK={"DATETIME_FORMAT": "%d.%m.%y %H:%M"}):
            for path in READS:
                answer = client.get(path)
                assert answer.status_code == 200, (path, answer.content)
                found = [time for _, time in times_in(answer.json()) if time is not None]
                assert text in found, path
                assert all(map(TIME.fullmatch, found)), (path, found)
                assert TIME.fullmatch(answer.get("X-Mirror-As-Of", text)), path


def test_admin_pages_and_metrics_show_extreme_times(edge: datetime) -> None:
    fill(1)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    urls = [*pages(), "/admin/", "/metrics"]
    for row in (Skill.objects.get(name="Edge"), Category.objects.get(name="edge")):
        urls.append(f"/admin/marketplace_sync/{row._meta.model_name}/{row.pk}/change/")
    for zone in ZONES:
        with override_settings(TIME_ZONE=zone, LANGUAGE_CODE="de"):
            for path in urls:
                assert client.get(path).status_code in (200, 302), path


def test_times_with_a_z_on_pages_are_utc() -> None:
    fill(1)
    FeedChange.objects.update(at=datetime(2026, 7, 1, 23, 30, tzinfo=UTC))
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", password="x"))
    with override_settings(TIME_ZONE=ZONES[0]):
        page = client.get(f"/admin/marketplace_sync/skill/{Skill.objects.get().pk}/change/").content.decode()
    assert "2026-07-01 23:30:00Z" in page
    assert "2026-07-01 16:30:00" not in page


async def test_live_feed_sends_extreme_times() -> None:
    for edge in (EDGES[0], EDGES[-1]):
        await ask(set_all_times_to, edge)
        key = await ask(agent_key, f"reader-{edge.year}")
        with override_settings(TIME_ZONE=ZONES[edge.year > 1]):
            async with Visitor(Hub(QUICK), "after=0", bearer(key)) as visitor:
                (change,) = (await visitor.message())["changes"]
        assert change["at"] == edge.isoformat().replace("+00:00", "Z")
        await ask(empty)


def empty() -> None:
    for model in (FeedChange, SyncRun, Command, DeadLetter, Skill, Category):
        model.objects.all().delete()


@pytest.mark.parametrize("zone", ZONES)
def test_filter_time_without_an_offset_is_utc(client: ApiClient, zone: str) -> None:
    set_all_times_to(datetime(2026, 3, 29, 2, 30, tzinfo=UTC))
    with override_settings(TIME_ZONE=zone):
        for since, found in (("2026-03-29T02:30", 1), ("2026-03-29T02:30:00Z", 1), ("2026-03-29T02:30:01", 0)):
            rows = client.get("/api/admin/audit/", {"since": since, "until": "2026-03-30"}).json()
            assert rows["count"] == found, since
        for edge in ("0001-01-01T00:00", "9999-12-31T23:59:59.999999"):
            assert client.get("/api/admin/audit/", {"since": edge}).status_code == 200
