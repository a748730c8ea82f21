"""Security of the site: headers of every response, sessions, limits, permissions, and pages without secrets."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from django.views.debug import technical_500_response

from atomproject.headers import policy
from atomproject.login import login_limits
from atomproject.login_limits import LoginLimits
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.live.credentials import authenticate
from marketplace_sync.live.handshake import SubscriptionRefusedError, read_handshake
from marketplace_sync.models import AuditRow
from marketplace_sync.redaction import protect
from marketplace_sync.tests.support.admin_rows import person
from marketplace_sync.tests.support.api_actors import agent, new_key
from marketplace_sync.tests.unit.test_settings import FOLDER

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    login_limits.clear()
    yield
    login_limits.clear()


# Headers.

ANSWERS = {
    "a login page": ("/admin/login/", 200),
    "a redirect": ("/admin/", 302),
    "an answer of the API": ("/api/skills/", 401),
    "a path of the API that is not there": ("/api/none/", 401),
    "a path that is not there": ("/none/", 404),
    "a static file": ("/static/admin/css/base.css", 200),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_response_has_a_content_security_policy(name: str) -> None:
    path, status = ANSWERS[name]
    response = Client().get(path)
    assert response.status_code == status
    headers = response.headers
    rules = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["default-src"] in ("'self'", "'none'")
    assert "'unsafe-inline'" not in rules.get("script-src", "")
    assert "camera=()" in headers["Permissions-Policy"]
    if name != "a static file":  # answered before it gets to Django's own middleware
        assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_refused_host_gets_the_policy_and_is_not_repeated() -> None:
    response = Client().get("/admin/login/", headers={"Host": "evil.invalid"})
    assert response.status_code == 400
    assert "frame-ancestors 'none'" in response["Content-Security-Policy"]
    assert "evil.invalid" not in response["Content-Security-Policy"] + response.content.decode()


def test_script_policy_is_looser_only_on_listed_paths() -> None:
    def rule(path: str, name: str) -> str:
        text = policy(RequestFactory(headers={"Host": "localhost"}).get(path), page=True)
        return dict(part.split(" ", 1) for part in text.split("; "))[name]

    assert rule("/admin/x/", "script-src") == "'self' 'unsafe-eval'"
    assert rule("/api/docs/", "script-src") == rule("/anything/", "script-src") == "'self'"
    assert rule("/anything/", "style-src") == "'self'"
    assert rule("/anything/", "connect-src") == "'self' ws://localhost"
    assert rule("/anything/", "object-src") == "'none'"
    assert rule("/anything/", "form-action") == "'self'"


def test_no_template_has_an_inline_script_or_handler() -> None:
    for page in Path(FOLDER, "marketplace_sync", "templates").rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), page
        assert not re.search(r"\son[a-z]+\s*=", text), page
        assert "|safe" not in text and "autoescape off" not in text, page


# Logins.


def log_in(client: Client, name: str, password: str) -> Any:
    return client.post("/admin/login/", {"username": name, "password": password, "next": "/admin/"})


def test_login_creates_a_new_session_and_logout_ends_it() -> None:
    person("root", superuser=True)
    client = Client()
    client.get("/admin/login/")
    planted = client.session
    planted["planted"] = True
    planted.save()
    client.cookies["sessionid"] = planted.session_key
    assert log_in(client, "root", "secret").status_code == 302
    cookie = client.cookies["sessionid"]
    assert cookie.value != planted.session_key
    assert not Session.objects.filter(pk=planted.session_key).exists()
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert client.get("/admin/").status_code == 200
    client.post("/admin/logout/")
    stolen = Client()
    stolen.cookies["sessionid"] = cookie.value
    assert stolen.get("/admin/").status_code == 302


def test_password_guesses_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("atomproject.login.login_limits", LoginLimits(lambda: now[0]))
    person("root", superuser=True)
    for _ in range(10):
        assert "Too many" not in log_in(Client(), "root", "wrong").content.decode()
    refused = log_in(Client(), "root", "secret")
    assert (refused.status_code, refused["Retry-After"]) == (429, "60")
    assert "Too many failed logins from this address. Try again in 60 seconds." in refused.content.decode()
    now[0] = 60.0
    assert log_in(Client(), "root", "secret").status_code == 302


def test_key_guesses_on_websockets_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketplace_sync.live.credentials.failed_keys", SlidingWindow(3, 60.0))
    good = new_key("scout", Maturity.STUDENT)[1]

    def code(raw: str) -> int:
        headers = [(b"authorization", f"Bearer {raw}".encode())]
        try:
            authenticate(read_handshake({"headers": headers, "client": ("10.0.0.1", 1)}))
        except SubscriptionRefusedError as refused:
            return refused.code
        return 0

    assert [code("mirror_" + "0" * 64) for _ in range(5)] == [4401, 4401, 4401, 4429, 4429]
    assert code(good) == 0


def test_api_refuses_a_session_without_a_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("root", superuser=True))
    response = client.post("/api/admin/sync/trigger/", data={}, content_type="application/json")
    assert response.status_code == 403


# People.


def change(client: Client, user: User, **fields: Any) -> Any:
    dates = {"last_login_0": "", "last_login_1": "", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    return client.post(f"/admin/auth/user/{user.pk}/change/", {"username": user.username, **dates, **fields})


def test_changes_of_permissions_are_audited() -> None:
    root, ada = person("root", superuser=True), person("ada", staff=False)
    client = Client()
    client.force_login(root)
    permission = Permission.objects.get(codename="manage_sync")
    given = change(client, ada, is_active="on", is_staff="on", user_permissions=[permission.pk])
    assert given.status_code == 302
    row = AuditRow.objects.get(verb="change_person")
    assert (row.actor, row.target, row.required, row.outcome) == ("user:root", "user ada", "SUPERUSER", "performed")
    assert row.details["manages"] is True and row.details["is_superuser"] is False
    password = "long-and-odd-0815"
    added = client.post(
        "/admin/auth/user/add/",
        {
            "username": "eve",
            "password1": password,
            "password2": password,
            "usable_password": "true",
        },
    )
    assert added.status_code == 302
    row = AuditRow.objects.get(verb="add_person")
    assert row.target == "user eve"
    assert "0815" not in str(row.details)


@pytest.mark.parametrize("rights", [{"is_superuser": "on"}, {"is_staff": "on"}])
def test_nobody_can_raise_their_own_permissions(rights: dict[str, str]) -> None:
    manager = person("manager", manages=True)
    manager.user_permissions.add(*Permission.objects.filter(content_type__app_label="auth"))
    client = Client()
    client.force_login(manager)
    assert change(client, manager, is_active="on", **rights).status_code == 403
    manager.refresh_from_db()
    assert (manager.is_superuser, AuditRow.objects.count()) == (False, 0)


# Debug pages.


def debug_page(request: HttpRequest) -> str:
    """Return the debug page of the exception that is being handled."""
    response = technical_500_response(request, *sys.exc_info())  # type: ignore[arg-type]
    return response.content.decode()


@override_settings(
    DEBUG=True,
    DEFAULT_EXCEPTION_REPORTER="atomproject.debug_pages.SafeExceptionReporter",
    REDIS="redis://user:redispass@10.0.0.1:6379/0",
    CHANNEL_LAYERS={"default": {"CONFIG": {"hosts": ["redis://:layerpass@10.0.0.1:6379/0"]}}},
)
@pytest.mark.parametrize("accept", ["text/html", "text/plain"])
def test_debug_page_shows_variables_and_settings_without_secrets(accept: str) -> None:
    token, password = "sekret/tok+1%&=#en<x>", "dbpass-0815"
    for secret in (token, password):
        protect(secret)
    _, key = new_key("scout", Maturity.STUDENT)
    request = RequestFactory().get("/api/skills/", headers={"Accept": accept, "Authorization": f"Bearer {key}"})

    def fails(raw: str, url: str, settings_dict: dict[str, str], listed: list[str]) -> None:
        harmless = "shown"
        raise ValueError(f"could not connect to {url} as {raw}, {harmless}")

    try:
        fails(token, f"postgres://me:urlpass@db/{password}", {"PASSWORD": password, "conn": password}, [key])
    except ValueError:
        text = debug_page(request)
    assert "ValueError" in text and "could not connect" in text
    if accept == "text/html":
        assert "harmless" in text and "listed" in text
    page = text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&#x27;", "'")
    for secret in (token, password, key, key[8:], "urlpass", "redispass", "layerpass", "sekret"):
        # The source of this very test stands on the page as well, where secrets are written out.
        lines = [line for line in page.splitlines() if secret in line and "token, password =" not in line]
        assert lines == [], secret


def test_error_page_without_debug_shows_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("inner workings")

    monkeypatch.setattr("marketplace_sync.api.catalogue.snapshot", fail)
    client = agent()
    client.raise_request_exception = False
    response = client.get("/api/skills/")
    assert (response.status_code, response.json()["code"]) == (500, "server_error")
    assert "inner workings" not in response.content.decode()
