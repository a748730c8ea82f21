"""The front page: who sees which part, what it costs, that nothing in it acts, and the figures behind its charts."""

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

from marketplace_sync.admin.charts import lately
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.mirror.figures import minute_of
from marketplace_sync.mirror.state import TOTALS
from marketplace_sync.models import AuditRow, Category, Command, LeaseRow, MinuteFigures, Skill, SyncRun, WebSocketState
from marketplace_sync.tests.support.admin_rows import SCRIPT, agent, dead_letter, fill, held_run, person

pytestmark = pytest.mark.django_db

FRONT = "/admin/"
NOW = "/admin/overview/now/"
FIGURES = "/admin/overview/figures/"
NAMES = "/admin/overview/names/"
BUTTONS = ("reconnect", "sync", "enable", "disable")

CATALOGUE = {"mm-standing", "mm-tiles", "mm-sizes", "mm-feed", "mm-chart-size"}
STATE = {"mm-totals", "mm-chart-messages", "mm-chart-lag"}
MANAGEMENT = STATE | {"mm-passes", "mm-waits"}
PARTS = CATALOGUE | MANAGEMENT


def shown(body: str) -> set[str]:
    return {part for part in PARTS if f'id="{part}"' in body}


def daemon(state: str = "live", **columns: Any) -> None:
    """A daemon that lives and says this state."""
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
def test_who_sees_which_parts_and_buttons(client: Client, who: str, parts: set[str], buttons: bool) -> None:
    fill(1)
    daemon("reconnecting", disconnect_reason="secret reason", next_ws_attempt_at=timezone.now())
    client.force_login(person("p", manages=who == "manager", superuser=who == "superuser"))
    body = client.get(FRONT).content.decode()
    assert shown(body) == parts
    for verb in BUTTONS:
        assert (f'action="{reverse(f"admin:marketplace_sync_websocketstate_{verb}")}"' in body) is (
            buttons and verb != "enable"
        )
    renewed = client.get(NOW, {"all": "1"}).content.decode()
    assert shown(renewed) == parts - {"mm-feed", "mm-chart-size", "mm-chart-messages", "mm-chart-lag"}
    for page in (body, renewed):
        assert "reconnecting" in page
        assert ("secret reason" in page) is buttons
        assert ("here:1" in page) is buttons
    assert ("received" in client.get(FIGURES).json()) is buttons
    assert "skills" in client.get(FIGURES).json()


@pytest.mark.parametrize("address", [FRONT, NOW, FIGURES, NAMES])
def test_nobody_and_a_mere_account_see_nothing(client: Client, address: str) -> None:
    assert client.get(address).status_code == 302
    client.force_login(person("p", staff=False))
    assert client.get(address).status_code == 302


def test_django_s_view_permission_shows_a_part_without_buttons(client: Client) -> None:
    user = person("support")
    user.user_permissions.add(Permission.objects.get(codename="view_websocketstate"))
    client.force_login(user)
    body = client.get(FRONT).content.decode()
    assert shown(body) == CATALOGUE | STATE
    assert "mm-ask" not in body


def test_a_disabled_agent_s_account_sees_nothing(client: Client) -> None:
    climber = agent("climber")
    climber.user.is_staff = climber.user.is_superuser = True
    climber.user.save()
    climber.enabled = False
    climber.save()
    client.force_login(climber.user)
    assert shown(client.get(FRONT).content.decode()) == set()
    assert client.get(FIGURES).status_code == client.get(NAMES).status_code == 403


def test_a_button_asks_why_is_audited_and_leads_back(root: Client) -> None:
    daemon()
    url = reverse("admin:marketplace_sync_websocketstate_sync")
    answer = root.post(url, {"reason": "for a test", "from": "front"})
    command = Command.objects.get()
    assert answer["Location"] == f"{FRONT}?request={command.pk}"
    assert f"Request #{command.pk}" in root.get(answer["Location"]).content.decode()
    assert f"Request #{command.pk}" in root.get(NOW, {"request": command.pk}).content.decode()
    assert AuditRow.objects.get().reason == "for a test"
    elsewhere = root.post(url, {"reason": "again", "from": "https://evil.invalid/"})
    assert elsewhere["Location"].startswith("/admin/marketplace_sync/websocketstate/?request=")


def test_an_answer_to_a_request_is_for_those_who_see_requests(client: Client) -> None:
    fill(1)
    client.force_login(person("viewer"))
    assert "Request #" not in client.get(FRONT, {"request": Command.objects.get().pk}).content.decode()


@pytest.mark.parametrize("wanted", ["x", "-1", "9" * 30, ""])
def test_a_request_that_can_t_be_is_none(root: Client, wanted: str) -> None:
    assert root.get(FRONT, {"request": wanted}).status_code == 200


def test_what_waits_for_a_person_is_told(root: Client) -> None:
    assert "Nothing waits" in root.get(FRONT).content.decode()
    run = held_run("a", "b", "c")
    for number in range(2):
        dead_letter(number)
    body = root.get(FRONT).content.decode()
    assert f"Run {run.pk} holds 3 removals back" in body and "too many" in body
    assert "2 open dead letters" in body


def test_the_pass_that_runs_shows_how_far_it_is(root: Client) -> None:
    SyncRun.objects.create(reason="poll", started_at=timezone.now(), pages_done=3, pages_total=12, listed=300)
    body = root.get(FRONT).content.decode()
    assert re.search(r'<progress [^>]*value="25"', body)
    assert "page 3 of 12" in body
    SyncRun.objects.update(pages_total=None)
    assert re.search(r'<progress [^>]*max="100" aria', root.get(NOW).content.decode())


def test_a_reconnect_to_come_is_told_with_its_time(root: Client) -> None:
    at = timezone.now() + timedelta(seconds=9)
    daemon("reconnecting", next_ws_attempt_at=at, consecutive_failures=2, disconnect_reason="the line broke")
    body = root.get(FRONT).content.decode()
    assert f'data-until datetime="{at.isoformat()}"' in body
    assert "after 2 failures in a row" in body and "the line broke" in body


def test_a_dead_daemon_is_told_whatever_it_wrote_last(root: Client) -> None:
    daemon("live")
    LeaseRow.objects.update(renewed_at=timezone.now() - timedelta(minutes=5))
    body = root.get(FRONT).content.decode()
    assert "not running" in body and ">live<" not in body


def test_nothing_of_the_marketplace_s_acts_and_nothing_needs_an_inline_script_or_style(root: Client) -> None:
    fill(3)
    daemon("reconnecting", disconnect_reason=SCRIPT)
    SyncRun.objects.update(held_reason=SCRIPT)
    for address in (FRONT, f"{NOW}?all=1"):
        body = root.get(address).content.decode()
        assert "<script>alert" not in body and "&lt;script&gt;alert" in body
        own = body[body.index('id="mm-clock"') : body.rindex('id="mm-totals"')]
        assert "style=" not in own
        assert not re.search(r"<[^>]*\son[a-z]+=", own)
        assert not re.search(r"<script(?! id=\"mm-page\" type=\"application/json\")", own)


def test_the_page_asks_for_nothing_that_is_not_there(root: Client) -> None:
    body = root.get(FRONT).content.decode()
    ours = re.findall(r'(?:src|href)="(/static/marketplace_sync/[^"]+)"', body)
    assert any("overview/main.js" in each for each in ours) and any("uPlot" in each for each in ours)
    for address in ours:
        answer = root.get(address)
        assert answer.status_code == 200, address
        if address.endswith("main.js"):
            for module in re.findall(rb'from "\./([a-z]+\.js)"', answer.content):
                assert root.get(address.replace("main.js", module.decode())).status_code == 200


def test_the_number_of_queries_is_bounded_and_does_not_grow(root: Client) -> None:
    asked: list[list[int]] = []
    for more in (3, 20):
        fill(more)
        daemon()
        for ago in range(1, 8):
            MinuteFigures.objects.get_or_create(at=minute_of(database_now()) - timedelta(minutes=ago * more))
        counts = []
        for address in (FRONT, NOW, f"{NOW}?all=1", FIGURES, f"{NAMES}?key=s1&key=s2"):
            root.get(address)
            with CaptureQueriesContext(connection) as ran:
                root.get(address)
            counts.append(len(ran))
        asked.append(counts)
    # Session, account and its agent are three of each, the judgement is 16; the page has the side bar's two badges
    # as well.
    assert asked == [[33, 26, 30, 5, 4]] * 2


def test_no_part_reads_the_large_columns(root: Client) -> None:
    fill(2)
    with CaptureQueriesContext(connection) as asked:
        root.get(FRONT)
        root.get(f"{NOW}?all=1")
    told = " ".join(query["sql"] for query in asked.captured_queries)
    for large in ('_skill"."code"', '_skill"."metadata"', '_change"."data"', '_deadletter"."head"'):
        assert f'"marketplace_sync{large}' not in told


def test_figures_are_a_column_a_figure_and_a_row_a_minute_of_the_last_day(root: Client) -> None:
    old, new = minute(24 * 60 + 5, received=1), minute(3, received=60, lag_p50=0.5)
    newest = minute(1, received=7, skills=12)
    told = root.get(FIGURES).json()
    assert told["at"] == [int(new.at.timestamp()), int(newest.at.timestamp())]
    assert (told["received"], told["lag_p50"], told["skills"]) == ([60, 7], [0.5, None], [None, 12])
    assert int(old.at.timestamp()) not in told["at"]
    assert root.get(FIGURES, {"after": told["at"][-1]}).json()["at"] == told["at"][-1:]
    for wrong in ("x", "-5", "9" * 18):
        assert root.get(FIGURES, {"after": wrong}).json()["at"] == told["at"]


def test_the_rate_is_of_the_last_minute_or_two_and_the_lag_of_ten() -> None:
    now = minute_of(database_now()) + timedelta(seconds=30)
    assert lately(now).rates == dict.fromkeys(TOTALS, 0.0)
    MinuteFigures.objects.create(at=minute_of(now), received=30, applied=15)
    assert lately(now).rates["received"] == 1.0
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=1), received=60, lags={"10": 3})
    assert (lately(now).rates["received"], lately(now).rates["applied"]) == (1.0, 15 / 90)
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=9), received=999, lags={"90": 1})
    MinuteFigures.objects.create(at=minute_of(now) - timedelta(minutes=11), lags={"150": 999})
    told = lately(now)
    assert told.rates["received"] == 1.0
    assert told.lag_p50 == pytest.approx(0.001 * 1.1**9.5)
    assert told.lag_p99 == pytest.approx(0.001 * 1.1**89.5)


def test_the_largest_categories_are_told_by_the_skills_that_are_here(root: Client) -> None:
    now = timezone.now()
    for name, count in (("small", 1), ("large", 4), ("empty", 0)):
        category = Category.objects.create(name=name, skill_count=99)
        for number in range(count):
            Skill.objects.create(skill_id=f"{name}{number}", name="x", category=category, synced_at=now)
    Skill.objects.create(skill_id="none", name="x", synced_at=now)
    body = root.get(f"{NOW}?all=1").content.decode()
    told = re.findall(r"<bdi>(\w+)</bdi>.*?width=\"([\d.]+)%\".*?<span>(\d+)</span>", body)
    assert told == [("large", "100.0", "4"), ("small", "25.0", "1")]
    assert re.search(r"<b[^>]*>6</b> skills in <b[^>]*>3</b> categories", body)


def test_names_are_told_for_ids_that_are_there(root: Client) -> None:
    fill(1)
    Skill.objects.update(name="<b>One</b>")
    assert root.get(NAMES, {"key": ["s0", "absent", "a\0b"]}).json() == {"names": {"s0": "<b>One</b>"}}
    assert root.get(NAMES).json() == {"names": {}}
