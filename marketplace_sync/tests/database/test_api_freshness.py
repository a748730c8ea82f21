"""`X-Mirror-State` and `X-Mirror-As-Of`: what an agent may rely on, whatever became of the daemon."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from marketplace_sync.models import Category, LeaseRow, Skill, SyncRun, WebSocketState
from marketplace_sync.tests.support.api_actors import ApiClient, agent

pytestmark = pytest.mark.django_db

PATHS = ("/api/skills/", "/api/skills/s1/", "/api/categories/", "/api/categories/c/")


@pytest.fixture
def client() -> ApiClient:
    category = Category.objects.create(name="c")
    Skill.objects.create(skill_id="s1", name="One", category=category, synced_at=timezone.now())
    return agent()


def daemon(state: str, *, beat_ago: float | None = 1.0, level_ago: float | None = None) -> None:
    """Store a daemon with this state, whose last heartbeat is that many seconds ago; `None`: no lease owner."""
    now = timezone.now()
    beat = None if beat_ago is None else now - timedelta(seconds=beat_ago)
    level = None if level_ago is None else now - timedelta(seconds=level_ago)
    LeaseRow.objects.update_or_create(pk=1, defaults={"holder": "" if beat is None else "here:1", "renewed_at": beat})
    WebSocketState.objects.update_or_create(pk=1, defaults={"state": state, "in_sync_at": level})


def clean_sync(began_ago: float, *, clean: bool | None = True) -> None:
    now = timezone.now()
    SyncRun.objects.create(
        reason="poll", state="done", is_clean=clean, started_at=now - timedelta(seconds=began_ago), finished_at=now
    )


def freshness_of(client: ApiClient, path: str) -> tuple[str, datetime | None]:
    """State, and what the answer is as of."""
    answer = client.get(path)
    as_of = answer.headers.get("X-Mirror-As-Of")
    assert as_of is None or as_of.endswith("Z")
    return answer["X-Mirror-State"], None if as_of is None else datetime.fromisoformat(as_of)


def beat() -> datetime | None:
    """Return the daemon's last heartbeat."""
    return LeaseRow.objects.get().renewed_at


def level() -> datetime | None:
    return WebSocketState.objects.get().in_sync_at


@pytest.mark.parametrize("path", PATHS)
def test_live_mirror_is_as_of_its_heartbeat(client: ApiClient, path: str) -> None:
    daemon("live", beat_ago=1, level_ago=4)
    clean_sync(3000)
    assert freshness_of(client, path) == ("live", beat())


@pytest.mark.parametrize("path", PATHS)
def test_as_of_is_absent_before_the_first_clean_sync(client: ApiClient, path: str) -> None:
    assert freshness_of(client, path) == ("not_running", None)
    daemon("catching_up")
    clean_sync(100, clean=False)
    clean_sync(100, clean=None)
    assert freshness_of(client, path) == ("catching_up", None)


def test_as_of_is_the_last_live_time_or_the_start_of_the_last_clean_sync(client: ApiClient) -> None:
    daemon("polling", level_ago=500)
    assert freshness_of(client, PATHS[0]) == ("polling", level())
    clean_sync(900)
    assert freshness_of(client, PATHS[0]) == ("polling", level())
    clean_sync(200)
    clean_sync(100, clean=False)
    began = SyncRun.objects.get(is_clean=True, started_at__gt=level()).started_at
    assert freshness_of(client, PATHS[0]) == ("polling", began)


def test_crashed_live_daemon_leaves_as_of_at_its_last_heartbeat(client: ApiClient) -> None:
    daemon("live", beat_ago=300, level_ago=304)
    assert freshness_of(client, PATHS[0]) == ("not_running", beat())


def test_clean_stop_shows_immediately(client: ApiClient) -> None:
    daemon("not_running", beat_ago=None, level_ago=60)
    assert freshness_of(client, PATHS[1]) == ("not_running", level())


def test_404_carries_the_same_freshness(client: ApiClient) -> None:
    daemon("live")
    for path in ("/api/skills/absent/", "/api/categories/absent/", "/api/skills/?nonsense=1"):
        assert freshness_of(client, path) == ("live", beat()), path


def test_refused_client_learns_no_freshness() -> None:
    daemon("live")
    for path in PATHS:
        answer = ApiClient("wrong").get(path)
        assert answer.status_code == 401
        assert "X-Mirror-State" not in answer
