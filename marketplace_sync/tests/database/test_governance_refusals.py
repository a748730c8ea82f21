"""Audit rows of refusals: their number is bounded, and further refusals are counted."""

from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse

from marketplace_sync.api import throttles
from marketplace_sync.governance import refusals
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.refusals import FoldedRefusals, folded_refusals
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.models import AuditRow
from marketplace_sync.tests.support.admin_rows import dead_letter, person
from marketplace_sync.tests.support.api_actors import agent

pytestmark = pytest.mark.django_db(transaction=True)

RECONNECT = "/api/admin/websocket/reconnect/"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which refused requests are counted."""
    clock = Clock()
    monkeypatch.setattr("marketplace_sync.governance.action.refused_requests", SlidingWindow(30, 60.0, clock))
    folded = FoldedRefusals(clock)
    monkeypatch.setattr("marketplace_sync.governance.action.folded_refusals", folded)
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(1000, 1.0))
    clock.folded = folded  # type: ignore[attr-defined]
    return clock


def of(name: str) -> Any:
    return AuditRow.objects.filter(actor=name).order_by("id")


def test_refusals_beyond_30_per_minute_are_429_and_one_row_with_a_count(clock: Any) -> None:
    client = agent(Maturity.STUDENT)
    paths = [RECONNECT, "/api/admin/sync/trigger/", "/api/admin/dead-letters/1/discard/"]
    codes = []
    for number in range(100):
        clock.now = number / 10
        codes.append(client.ask(paths[number % 3], {"reason": "x" * 1000}))
    assert [answer.status_code for answer in codes] == [403] * 30 + [429] * 70
    assert (codes[-1].json()["code"], codes[-1]["Retry-After"]) == ("throttled", "51")
    rows = list(of("agent:a-student"))
    assert len(rows) == 30
    assert {len(row.reason) for row in rows} == {200}
    clock.folded.write_due()
    assert of("agent:a-student").count() == 30  # the flood continues
    clock.now = 12.0
    clock.folded.write_due()
    clock.folded.write_due()
    row = of("agent:a-student").last()
    assert of("agent:a-student").count() == 31
    assert (row.verb, row.outcome, row.allowed, row.target) == ("refused_requests", "refused", False, "70 requests")
    assert row.details["count"] == 70
    assert sum(row.details["verbs"].values()) == 70 and set(row.details["verbs"]) == {
        "reconnect", "sync", "discard_dead_letter",
    }  # fmt: skip


def test_a_flood_of_refusals_costs_one_more_row_per_minute(clock: Any) -> None:
    client = agent(Maturity.STUDENT)
    for second in range(0, 181, 3):
        clock.now = float(second)
        for _ in range(3):
            client.ask(RECONNECT)
        clock.folded.write_due()
    clock.now = 300.0
    clock.folded.write_due()
    rows = of("agent:a-student")
    counts = [row.details["count"] for row in rows.filter(verb="refused_requests")]
    refused = rows.exclude(verb="refused_requests").count()
    assert refused + sum(counts) == 3 * 61  # 60 per minute
    assert len(counts) <= 4 and refused <= 30 * 4


def test_impossible_requests_share_the_limit_of_refused_ones(clock: Any) -> None:
    client = agent()
    paths = ["/api/admin/dead-letters/999/discard/", "/api/admin/dead-letters/999/replay/",
             "/api/admin/sync/runs/999/dismiss/", "/api/admin/sync/runs/999/approve/"]  # fmt: skip
    codes = [client.ask(paths[number % 4], {"reason": "x" * 200}).status_code for number in range(60)]
    assert codes == [404, 404, 404, 403] * 7 + [404, 404] + [429] * 30
    clock.now = 3.0
    clock.folded.write_due()
    assert of("agent:a-autonomous").count() == 31
    row = of("agent:a-autonomous").last()
    assert (row.verb, row.details["count"]) == ("refused_requests", 30)
    assert client.ask(RECONNECT).status_code == 202  # a possible action is performed


def test_the_limit_is_per_actor_and_new_rights_count(clock: Any) -> None:
    student, other = agent(Maturity.STUDENT), agent(Maturity.INTERN)
    assert [student.ask(RECONNECT).status_code for _ in range(31)][-1] == 429
    assert other.ask(RECONNECT).status_code == 403
    from marketplace_sync.models import Agent

    Agent.objects.update(maturity="AUTONOMOUS")
    assert student.ask(RECONNECT).status_code == 202


def test_admin_pages_and_api_share_the_limit_of_refusals(clock: Any, client: Client) -> None:
    client.force_login(person("viewer"))
    page = reverse("admin:marketplace_sync_websocketstate_reconnect")
    many = reverse("admin:marketplace_sync_deadletter_changelist")
    dead_letter_id = dead_letter(1).pk
    data = {"action": "discard", "_selected_action": [dead_letter_id], "reason": "y" * 900}
    answers = [client.post(page, {"reason": "x" * 900}).status_code for _ in range(29)]
    answers += [client.post(many, data).status_code for _ in range(2)]
    assert answers == [403] * 30 + [429]
    last = client.post(page, {"reason": "x"})
    assert (last.status_code, last["Retry-After"]) == (429, "60")
    assert b"Too many refused requests" in last.content
    assert of("user:viewer").count() == 30
    assert max(len(row.reason) for row in of("user:viewer")) == 200


def test_the_texts_of_a_refused_request_are_bounded(clock: Any) -> None:
    client = agent(Maturity.STUDENT)
    answer = client.ask(RECONNECT, {"reason": "\U0001f480" * 1000}, REMOTE_ADDR="9" * 5000)
    assert answer.status_code == 403
    row = of("agent:a-student").get()
    assert (len(row.reason), len(row.origin)) == (200, 200)
    stored = sum(len(str(value).encode()) for value in AuditRow.objects.filter(pk=row.pk).values_list()[0])
    assert stored < 1500


def test_a_count_that_could_not_be_written_is_kept(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = agent(Maturity.STUDENT)
    for _ in range(35):
        client.ask(RECONNECT)
    clock.now = 10.0

    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(refusals, "record", fail)
        with pytest.raises(DatabaseError):
            clock.folded.write_due()
    client.ask(RECONNECT)
    clock.now = 20.0
    clock.folded.write_due()
    row = of("agent:a-student").last()
    assert row is not None and row.details["count"] == 6


def test_the_process_writes_the_count_after_the_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_QUIET", 0.05)
    client = agent(Maturity.STUDENT)
    for _ in range(33):
        client.ask(RECONNECT)
    thread = folded_refusals._thread
    assert thread is not None
    thread.join(60)
    row = of("agent:a-student").last()
    assert row is not None and row.details["count"] == 3


def test_a_process_writes_its_counts_when_it_ends() -> None:
    counts = FoldedRefusals(Clock())
    somebody = Actor(kind="agent", ident="agent:a", maturity=Maturity.STUDENT, is_superuser=False, user_pk=None)
    counts.add(somebody, "reconnect", actual="STUDENT", required="AUTONOMOUS", origin="api")
    counts.write_rest()
    counts.write_rest()
    assert of("agent:a").get().details["count"] == 1
