"""The overview: which part each visitor sees, its queries, its escaping, and the figures of its charts."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from marketplace_sync.admin.charts import recent_figures
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.figures import minute_of
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.models import AuditRow, Category, Command, LeaseRow, MinuteFigures, Skill, SyncRun, WebSocketState
from marketplace_sync.tests.support.admin_rows import SCRIPT, agent, dead_letter, fill, held_run, person

pytestmark = pytest.mark.django_db

OVERVIEW = "/admin/"
NOW = "/admin/overview/now/"
FIGURES = "/admin/overview/figures/"
NAMES = "/admin/overview/names/"
BUTTONS = ("reconnect", "sync", "enable", "disable")

CATALOGUE = {"mm-status", "mm-tiles", "mm-sizes", "mm-feed", "mm-chart-size"}
STATE = {"mm-totals", "mm-chart-messages", "mm-chart-lag"}
MANAGEMENT = STATE | {"mm-runs", "mm-todo"}
PARTS = CATALOGUE | MANAGEMENT


def parts_of(body: str) -> set[str]:
    return {part for part in PARTS if f'id="{part}"' in body}


def daemon(state: str = "live", **columns: Any) -> None:
    """Let a daemon be alive in this state."""
    now = timezone.now()
    LeaseRow.objects.update_or_create(pk=1, defaults={"holder": "here:1", "renewed_at": now})
    WebSocketState.objects.update_or_create(pk=1, defaults={"state": state, "state_since": now, **columns})


def minute(ago: int, **figures: Any) -> MinuteFigures:
    at = minute_of(database_now()) - timedelta(minutes=ago)
    return MinuteFigures.objects.create(at=at, **figures)


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


@pytest.mark.parametrize(
    ("who", "parts", "buttons"),
    [("staff", CATALOGUE, False), ("manager", PARTS, True), ("superuser", PARTS, True)],
)
def test_staff_see_the_catalogue_and_managers_all_parts_and_buttons(
    client: Client, who: str, parts: set[str], buttons: bool
) -> None:
    fill(1)
    daemon("reconnecting", disconnect_reason="secret reason", next_ws_attempt_at=timezone.now())
    client.force_login(person("p", manages=who == "manager", superuser=who == "superuser"))
    body = client.get(OVERVIEW).content.decode()
    assert parts_of(body) == parts
    for verb in BUTTONS:
        assert (f'action="{reverse(f"admin:marketplace_sync_websocketstate_{verb}")}"' in body) is (
            buttons and verb != "enable"
        )
    renewed = client.get(NOW, {"all": "1"}).content.decode()
    assert parts_of(renewed) == parts - {"mm-feed", "mm-chart-size", "mm-chart-messages", "mm-chart-lag"}
    for page in (body, renewed):
        assert "reconnecting" in page
        assert ("secret reason" in page) is buttons
        assert ("here:1" in page) is buttons
    assert ("received" in client.get(FIGURES).json()) is buttons
    assert "skills" in client.get(FIGURES).json()


@pytest.mark.parametrize("address", [OVERVIEW, NOW, FIGURES, NAMES])
def test_anonymous_and_non_staff_visitors_are_redirected_to_the_login(client: Client, address: str) -> None:
    assert client.get(address).status_code == 302
    client.force_login(person("p", staff=False))
    assert client.get(address).status_code == 302


def test_view_permission_shows_a_part_without_buttons(client: Client) -> None:
    user = person("support")
    user.user_permissions.add(Permission.objects.get(codename="view_websocketstate"))
    client.force_login(user)
    body = client.get(OVERVIEW).content.decode()
    assert parts_of(body) == CATALOGUE | STATE
    assert "mm-action" not in body


def test_account_of_a_disabled_agent_sees_nothing(client: Client) -> None:
    climber = agent("climber")
    climber.user.is_staff = climber.user.is_superuser = True
    climber.user.save()
    climber.enabled = False
    climber.save()
    client.force_login(climber.user)
    assert parts_of(client.get(OVERVIEW).content.decode()) == set()
    assert client.get(FIGURES).status_code == client.get(NAMES).status_code == 403


def test_button_is_audited_with_its_reason_and_leads_back_to_the_overview(root: Client) -> None:
    daemon()
    url = reverse("admin:marketplace_sync_websocketstate_sync")
    answer = root.post(url, {"reason": "for a test", "from": "overview"})
    command = Command.objects.get()
    assert answer["Location"] == f"{OVERVIEW}?command={command.pk}"
    assert f"Command #{command.pk}" in root.get(answer["Location"]).content.decode()
    assert f"Command #{command.pk}" in root.get(NOW, {"command": command.pk}).content.decode()
    assert AuditRow.objects.get().reason == "for a test"
    elsewhere = root.post(url, {"reason": "again", "from": "https://evil.invalid/"})
    assert elsewhere["Location"].startswith("/admin/marketplace_sync/websocketstate/?command=")


def test_answer_of_a_command_is_hidden_from_those_who_may_not_see_commands(client: Client) -> None:
    fill(1)
    client.force_login(person("viewer"))
    assert "Command #" not in client.get(OVERVIEW, {"command": Command.objects.get().pk}).content.decode()


@pytest.mark.parametrize("wanted", ["x", "-1", "9" * 30, ""])
def test_invalid_command_number_is_ignored(root: Client, wanted: str) -> None:
    assert root.get(OVERVIEW, {"command": wanted}).status_code == 200


def test_to_do_lists_dead_letters_and_removals_on_hold(root: Client) -> None:
    assert "No removals on hold. No open dead letters." in root.get(OVERVIEW).content.decode()
    run = held_run("a", "b", "c")
    for number in range(2):
        dead_letter(number)
    body = root.get(OVERVIEW).content.decode()
    assert f"3 removals on hold in sync run {run.pk}" in body and "too many" in body
    assert "2 open dead letters" in body


def test_running_sync_shows_its_progress(root: Client) -> None:
    SyncRun.objects.create(reason="poll", started_at=timezone.now(), pages_done=3, pages_total=12, listed=300)
    body = root.get(OVERVIEW).content.decode()
    assert re.search(r'<progress [^>]*value="25"', body)
    assert "page 3 of 12" in body
    SyncRun.objects.update(pages_total=None)
    assert re.search(r'<progress [^>]*max="100" aria', root.get(NOW).content.decode())


def test_reconnecting_shows_the_time_of_the_next_attempt(root: Client) -> None:
    at = timezone.now() + timedelta(seconds=9)
    daemon("reconnecting", next_ws_attempt_at=at, consecutive_failures=2, disconnect_reason="the line broke")
    body = root.get(OVERVIEW).content.decode()
    assert f'data-until datetime="{at.isoformat()}"' in body
    assert "after 2 consecutive failures" in body and "the line broke" in body


def test_dead_daemon_is_shown_as_not_running(root: Client) -> None:
    daemon("live")
    LeaseRow.objects.update(renewed_at=timezone.now() - timedelta(minutes=5))
    body = root.get(OVERVIEW).content.decode()
    assert "not running" in body and ">live<" not in body


def test_marketplace_text_is_escaped_and_no_inline_script_or_style_is_needed(root: Client) -> None:
    fill(3)
    daemon("reconnecting", disconnect_reason=SCRIPT)
    SyncRun.objects.update(held_reason=SCRIPT)
    for address in (OVERVIEW, f"{NOW}?all=1"):
        body = root.get(address).content.decode()
        assert "<script>alert" not in body and "&lt;script&gt;alert" in body
        own = body[body.index('id="mm-clock"') : body.rindex('id="mm-totals"')]
        assert "style=" not in own
        assert not re.search(r"<[^>]*\son[a-z]+=", own)
        assert not re.search(r"<script(?! id=\"mm-page\" type=\"application/json\")", own)


def test_all_static_files_of_the_page_exist(root: Client) -> None:
    body = root.get(OVERVIEW).content.decode()
    ours = re.findall(r'(?:src|href)="(/static/marketplace_sync/[^"]+)"', body)
    assert any("overview/main.js" in each for each in ours) and any("uPlot" in each for each in ours)
    for address in ours:
        answer = root.get(address)
        assert answer.status_code == 200, address
        if address.endswith("main.js"):
            for module in re.findall(rb'from "\./([a-z]+\.js)"', answer.content):
                assert root.get(address.replace("main.js", module.decode())).status_code == 200


def test_number_of_queries_is_fixed(root: Client) -> None:
    asked: list[list[int]] = []
    for more in (3, 20):
        fill(more)
        daemon()
        for ago in range(1, 8):
            MinuteFigures.objects.get_or_create(at=minute_of(database_now()) - timedelta(minutes=ago * more))
        counts = []
        for address in (OVERVIEW, NOW, f"{NOW}?all=1", FIGURES, f"{NAMES}?key=s1&key=s2"):
            root.get(address)
            with CaptureQueriesContext(connection) as ran:
                root.get(address)
            counts.append(len(ran))
        asked.append(counts)
    # Three of each are the session, the account and its agent; 16 are the judgement. The page has the sidebar's two
    # badges too.
    assert asked == [[33, 26, 30, 5, 4]] * 2


def test_no_part_reads_large_columns(root: Client) -> None:
    fill(2)
    with CaptureQueriesContext(connection) as asked:
        root.get(OVERVIEW)
        root.get(f"{NOW}?all=1")
    queries = " ".join(query["sql"] for query in asked.captured_queries)
    for large in ('_skill"."code"', '_skill"."metadata"', '_change"."data"', '_deadletter"."head"'):
        assert f'"marketplace_sync{large}' not in queries


def test_figures_have_one_row_per_minute_of_the_last_day(root: Client) -> None:
    old, new = minute(24 * 60 + 5, received=1), minute(3, received=60, lag_p50=0.5)
    newest = minute(1, received=7, skills=12)
    figures = root.get(FIGURES).json()
    assert figures["at"] == [int(new.at.timestamp()), int(newest.at.timestamp())]
    assert (figures["received"], figures["lag_p50"], figures["skills"]) == ([60, 7], [0.5, None], [None, 12])
    assert int(old.at.timestamp()) not in figures["at"]
    assert root.get(FIGURES, {"after": figures["at"][-1]}).json()["at"] == figures["at"][-1:]
    for wrong in ("x", "-5", "9" * 18):
        assert root.get(FIGURES, {"after": wrong}).json()["at"] == figures["at"]


def test_rates_cover_one_to_two_minutes_and_lags_ten() -> None:
    now = minute_of(database_now()) + timedelta(seconds=30)
    assert recent_figures(now).rates == dict.fromkeys(TOTALS, 0.0)
    MinuteFigures.objects.create(at=minute_of(now), received=30, applied=15)
    assert recent_figures(now).rates["received"] == 1.0
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=1), received=60, lags={"10": 3})
    assert (recent_figures(now).rates["received"], recent_figures(now).rates["applied"]) == (1.0, 15 / 90)
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=9), received=999, lags={"90": 1})
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=11), lags={"150": 999})
    figures = recent_figures(now)
    assert figures.rates["received"] == 1.0
    assert figures.lag_p50 == pytest.approx(0.001 * 1.1**9.5)
    assert figures.lag_p99 == pytest.approx(0.001 * 1.1**89.5)


def test_largest_categories_are_ordered_by_stored_skills(root: Client) -> None:
    now = timezone.now()
    for name, count in (("small", 1), ("large", 4), ("empty", 0)):
        category = Category.objects.create(name=name, skill_count=99)
        for number in range(count):
            Skill.objects.create(skill_id=f"{name}{number}", name="x", category=category, synced_at=now)
    Skill.objects.create(skill_id="none", name="x", synced_at=now)
    body = root.get(f"{NOW}?all=1").content.decode()
    bars = re.findall(r"<bdi>(\w+)</bdi>.*?width=\"([\d.]+)%\".*?<span>(\d+)</span>", body)
    assert bars == [("large", "100.0", "4"), ("small", "25.0", "1")]
    assert re.search(r"<b[^>]*>6</b> skills in <b[^>]*>3</b> categories", body)


def test_names_are_returned_for_existing_ids(root: Client) -> None:
    fill(1)
    Skill.objects.update(name="<b>One</b>")
    assert root.get(NAMES, {"key": ["s0", "absent", "a\0b"]}).json() == {"names": {"s0": "<b>One</b>"}}
    assert root.get(NAMES).json() == {"names": {}}
