"""The pages of requests that failed: a reason, what to do, and a way back, whatever else is broken."""

import re
import sqlite3
from typing import Any

import psycopg
import pytest
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import IntegrityError, OperationalError, ProgrammingError, connections
from django.http import Http404, HttpRequest
from django.test import Client, override_settings
from django.urls import path
from psycopg_pool import PoolTimeout

from atomproject import urls
from marketplace_sync.tests.support.admin_rows import person
from marketplace_sync.unavailable import AWAY, BUSY, LOCKED, READ_ONLY, TIMEOUT, reason_of

HOSTILE = "<script>alert(1)</script>\u202e"


def sqlite_error(code: int, text: str) -> OperationalError:
    cause = sqlite3.OperationalError(text)
    cause.sqlite_errorcode = code
    return caused(cause)


def caused(cause: Exception) -> OperationalError:
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


ERRORS: dict[str, Exception] = {
    "locked": sqlite_error(sqlite3.SQLITE_BUSY, "database is locked"),
    "busy": caused(PoolTimeout("couldn't get a connection after 5.00 sec")),
    "timeout": caused(psycopg.errors.QueryCanceled("canceling statement due to statement timeout")),
    "interrupted": sqlite_error(sqlite3.SQLITE_INTERRUPT, "interrupted"),
    "read-only": caused(psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction")),
    "away": caused(psycopg.OperationalError("connection refused")),
    "broken": RuntimeError(HOSTILE),
    "missing": Http404(HOSTILE),
    "bad": BadRequest(HOSTILE),
    "denied": PermissionDenied(HOSTILE),
}


def fail(request: HttpRequest, how: str) -> Any:
    raise ERRORS[how]


urlpatterns = [path("admin/fail/<how>/", fail), path("api/fail/<how>/", fail), *urls.urlpatterns]
handler400, handler403, handler404, handler500 = urls.handler400, urls.handler403, urls.handler404, urls.handler500


@pytest.fixture
def visitor() -> Client:
    """Return a browser without a login, on a site whose views fail as their address demands."""
    with override_settings(ROOT_URLCONF=__name__):
        yield Client(raise_request_exception=False)


def test_each_database_error_has_its_reason() -> None:
    assert {name: reason_of(error) for name, error in ERRORS.items()} == {
        "locked": LOCKED, "busy": BUSY, "timeout": TIMEOUT, "interrupted": TIMEOUT, "read-only": READ_ONLY,
        "away": AWAY, "broken": None, "missing": None, "bad": None, "denied": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        sqlite_error(sqlite3.SQLITE_ERROR, "no such table: x"),
        caused(psycopg.errors.UndefinedTable("x")),
        IntegrityError("x"),
        ProgrammingError("x"),
    ],
)
def test_a_bug_is_not_reported_as_a_database_error(error: Exception) -> None:
    assert reason_of(error) is None


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("locked", 503), ("busy", 503), ("timeout", 503), ("interrupted", 503), ("read-only", 503), ("away", 503),
        ("broken", 500), ("missing", 404), ("bad", 400), ("denied", 403),
    ],
)  # fmt: skip
def test_error_page_needs_no_database_and_links_back(visitor: Client, how: str, status: int) -> None:
    # Without the mark django_db every query fails.
    answer = visitor.get(f"/admin/fail/{how}/")
    body = answer.content.decode()
    assert answer.status_code == status
    assert answer["Content-Type"].startswith("text/html")
    assert re.search(r"<h1>[^<]+</h1>\s*<p>[^<]+</p>\s*<p>[^<]+</p>", re.sub("<span[^>]*>|</span>", "", body))
    assert '<a href="/admin/">Overview</a>' in body
    assert "<script>alert" not in body
    assert ("Retry-After" in answer) == (status == 503)


@pytest.mark.parametrize(("how", "code"), [("locked", "database_locked"), ("busy", "database_busy")])
def test_api_answers_503_in_json(visitor: Client, how: str, code: str) -> None:
    answer = visitor.get(f"/api/fail/{how}/")
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert int(answer["Retry-After"]) > 0


def test_unknown_address_is_a_page_or_json_under_api(visitor: Client) -> None:
    page = visitor.get("/nothing/here/")
    assert page.status_code == 404
    assert "There is no such page" in page.content.decode()
    program = visitor.get("/api/nothing/here/")
    assert program["Content-Type"] == "application/json"


def test_form_without_csrf_token_gets_advice(visitor: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    answer = strict.post("/admin/login/", {"username": "x", "password": "y"})
    body = answer.content.decode()
    assert answer.status_code == 403
    assert "Reload the page with the form" in body
    assert 'href="/admin/login/?next=' in body


def test_wrong_host_gets_an_error_page(visitor: Client) -> None:
    answer = visitor.get("/admin/", headers={"host": "elsewhere.example"})
    assert answer.status_code == 400
    assert "DJANGO_ALLOWED_HOSTS" in answer.content.decode()


def test_error_page_policy_allows_only_its_own_style(visitor: Client) -> None:
    answer = visitor.get("/nothing/")
    policy = answer["Content-Security-Policy"]
    assert "style-src 'sha256-" in policy
    assert "unsafe" not in policy


@pytest.mark.django_db
def test_missing_row_links_back_to_its_list(client: Client) -> None:
    client.force_login(person("root", superuser=True))
    answer = client.get("/admin/marketplace_sync/syncrun/77/change/")
    assert answer.status_code == 404
    assert 'href="/admin/marketplace_sync/syncrun/"' in answer.content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sqlite")
def test_login_with_a_locked_database_is_503_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    person("root", superuser=True)
    connections["default"].close()
    monkeypatch.setitem(connections["default"].settings_dict["OPTIONS"], "timeout", 0.05)
    writer = sqlite3.connect(connections["default"].settings_dict["NAME"], isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        browser = Client(raise_request_exception=False)
        answer = browser.post("/admin/login/", {"username": "root", "password": "secret", "next": "/admin/"})
    finally:
        writer.execute("ROLLBACK")
        writer.close()
        connections["default"].close()
    assert answer.status_code == 503
    assert "The database is locked" in answer.content.decode()
