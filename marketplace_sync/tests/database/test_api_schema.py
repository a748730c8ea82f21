"""The API's own description: complete, exemplified, true, and shown without the internet."""

import itertools
import os
import re
from collections.abc import Iterator
from html import unescape
from io import StringIO
from typing import Any

import hypothesis
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.management.color import no_style
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connection
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase

from marketplace_sync.api import authentication, throttles
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.models import Command, DeadLetter, FeedChange, LeaseRow, SyncRun
from marketplace_sync.tests.support.api_actors import agent, new_key, person, put

pytestmark = pytest.mark.django_db(transaction=True)

# Of each operation and kind, valid and broken requests. The same ones in each run, so that a red one is red again;
# another seed, or many more, by hand: SCHEMA_EXAMPLES=150 SCHEMA_SEED=7 pytest .../test_api_schema.py
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "12"))
SEED = int(os.environ.get("SCHEMA_SEED", "0"))


@pytest.fixture
def schema() -> dict[str, Any]:
    response = agent(Maturity.STUDENT).get("/api/schema/")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def answers(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            for code, response in operation["responses"].items():
                yield f"{method} {path} {code}", response


def test_schema_is_valid_and_generated_without_a_warning() -> None:
    output = StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=output, stderr=output)
    assert "openapi: 3" in output.getvalue()


def test_every_answer_has_an_example(schema: dict[str, Any]) -> None:
    without = [
        name
        for name, response in answers(schema)
        if not any("examples" in media or "example" in media for media in response["content"].values())
    ]
    assert without == []


def test_every_operation_documents_its_errors(schema: dict[str, Any]) -> None:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert {"400", "401", "403", "429"} <= operation["responses"].keys(), (method, path)
            assert operation["security"], (method, path)


def test_schema_documents_the_feed_number_of_a_list(schema: dict[str, Any]) -> None:
    for path in ("/api/skills/", "/api/categories/"):
        assert "X-Feed-Seq" in schema["paths"][path]["get"]["responses"]["200"]["headers"]


def test_schema_documents_the_freshness_headers(schema: dict[str, Any]) -> None:
    catalogue = [path for path in schema["paths"] if path.startswith(("/api/skills/", "/api/categories/"))]
    assert len(catalogue) == 4
    for path in catalogue:
        headers = schema["paths"][path]["get"]["responses"]["200"]["headers"]
        assert "live" in headers["X-Mirror-State"]["schema"]["enum"]
        assert headers["X-Mirror-As-Of"]["schema"]["format"] == "date-time"


def test_documentation_page_works_offline() -> None:
    client = person()
    page = client.get("/api/docs/")
    assert page.status_code == 200
    text = page.content.decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(links) >= 3
    assert "http://" not in text and "https://" not in text
    found = {}
    for link in links:
        response = client.get(unescape(link))
        assert response.status_code == 200, link
        found[link] = b"".join(response) if response.streaming else response.content
    assert any(b"/api/schema/" in content for content in found.values())
    # Scripts stand in files of their own, or the page's policy keeps them from running.
    assert not re.search(r"<script(?![^>]*src=)", text)


@pytest.fixture
def _kept_connection() -> Iterator[None]:
    """Keep the connection open that the test uses: the WSGI handler would close it."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    yield
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


def fill() -> None:
    """One of everything."""
    now = timezone.now()
    put("1", category="0", average_rating=4.0)
    SyncRun.objects.create(pk=1, reason="poll", state="held", held_count=1, started_at=now, finished_at=now)
    Command.objects.create(action="sync", requested_by="x", requested_at=now, expires_at=now)
    DeadLetter.objects.create(
        pk=1, source="stream", code="missing", reason="required", head=b"{", size=1, digest="d", first_seen_at=now,
        last_seen_at=now,
    )  # fmt: skip
    LeaseRow.objects.update_or_create(pk=1, defaults={"feed_seq": 1})
    FeedChange.objects.create(seq=1, kind="skill_deleted", key="1", at=now, source="stream")
    # Rows with numbers of our choosing leave PostgreSQL's sequences where they were: the next row would collide.
    with connection.cursor() as cursor:
        for reset in connection.ops.sequence_reset_sql(no_style(), [SyncRun, Command, DeadLetter]):
            cursor.execute(reset)


@pytest.mark.usefixtures("_kept_connection")
@pytest.mark.timeout(180 + 20 * EXAMPLES)
def test_no_request_gets_a_500_or_an_undocumented_answer(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same requests by who may read and by who may do all: to think them up takes longer than to send them."""
    # Here, so that only the process that runs this test imports them: that takes a second.
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))
    monkeypatch.setattr(authentication, "failed_keys", SlidingWindow(10**9, 60.0))
    # Waiting is tried elsewhere; here it would only take its time.
    monkeypatch.setattr("marketplace_sync.api.control.wait_for", lambda command, seconds: command)
    fill()
    keys = [new_key(maturity.lower(), maturity)[1] for maturity in (Maturity.STUDENT, Maturity.AUTONOMOUS)]
    loaded = schemathesis.openapi.from_dict(schema)
    loaded.app = WSGIHandler()
    checks = [
        not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
        response_schema_conformance,
    ]  # fmt: skip
    tried: set[str] = set()
    for result, mode in itertools.product(loaded.get_all_operations(), GenerationMode):
        operation = result.ok()

        @hypothesis.seed(SEED)
        @hypothesis.settings(
            max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_documented(case: schemathesis.Case) -> None:
            tried.add(case.operation.label)
            for key in keys:
                case.call_and_validate(headers={"Authorization": f"Bearer {key}", "Host": "localhost"}, checks=checks)

        try:
            answers_as_documented()
        except hypothesis.errors.Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # an operation without anything that could be wrong
    assert len(tried) >= 20


def test_schema_and_documentation_need_a_login() -> None:
    for path in ("/api/schema/", "/api/docs/"):
        response = Client().get(path)
        assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
