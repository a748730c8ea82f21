"""Clients of the API that mean harm, over real sockets where bytes matter: refused in its own words, never a 500."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.test import Client

from atomproject import bodies
from marketplace_sync.api.authentication import failed_keys
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import AuditRow
from marketplace_sync.tests.support.admin_rows import fill, person
from marketplace_sync.tests.support.api_actors import ApiClient, agent, new_key, put
from marketplace_sync.tests.support.browser import web_server

pytestmark = pytest.mark.django_db(transaction=True)

RECONNECT = "/api/admin/websocket/reconnect/"
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def _fresh_window() -> Iterator[None]:
    failed_keys.clear()
    yield
    failed_keys.clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with web_server(monkeypatch) as base:
        yield base


@pytest.fixture
def key() -> str:
    return new_key("tester", Maturity.AUTONOMOUS)[1]


def exchange(server: str, *parts: bytes) -> bytes:
    """Send these bytes and nothing more, and return the response."""
    host, _, port = server.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        heard = b""
        try:
            for part in parts:
                connection.sendall(part)
            while piece := connection.recv(65536):
                heard += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up on what it no longer wants
        return heard


def head(method: str, target: str, key: str, *more: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *more]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "surrogateescape")


def status_of(heard: bytes) -> int:
    return int(heard.split(b" ", 2)[1])


# Bodies.


def test_body_with_a_too_large_content_length_is_refused_unread(server: str, key: str) -> None:
    heard = exchange(server, head("POST", RECONNECT, key, "Content-Length: 1000000000000"))
    assert status_of(heard) == 413
    assert json.loads(heard.partition(b"\r\n\r\n")[2])["code"] == "too_large"
    assert not AuditRow.objects.filter(verb="reconnect").exists()


def test_chunked_body_is_refused_when_it_becomes_too_large(server: str, key: str) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    request = head("POST", RECONNECT, key, "Transfer-Encoding: chunked", "Content-Type: application/json")
    heard = exchange(server, request, *[chunk] * 64)
    assert not heard or status_of(heard) == 413  # nothing: it hung up before what was on its way was read
    assert not AuditRow.objects.filter(verb="reconnect").exists()


def test_large_body_is_413_under_wsgi() -> None:
    client = agent()
    response = client.ask(RECONNECT, {"reason": "x" * (bodies.MAX_BODY_BYTES + 1)})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_missing_body_times_out(server: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomproject.asgi import application

    monkeypatch.setattr(application.application_mapping["http"], "_seconds", 0.3)
    begun = time.monotonic()
    heard = exchange(server, head("POST", RECONNECT, key, "Content-Length: 100"), b'{"reason": ')
    assert status_of(heard) == 408
    assert time.monotonic() - begun < PATIENCE


@pytest.mark.parametrize(
    "body", [
        b"[" * 1_000_000, b'{"reason":' * 100_000, b'{"reason": ' + b"9" * 1_000_000 + b"}", b'{"reason": NaN}',
        b'{"reason": "\\ud800"}', b'{"reason": "\\u0000"}', b'{"reason": "\xff"}',
        b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}", b"null", b"-", b"\x00",
        b'{"reason": ["x"]}', b'{"reason": {"reason": "x"}}', b'{"__proto__": {}}',
        b'{"\\ud800": 1}', b'{"a\\udfff": 1}',
    ], ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_malformed_body_is_400_in_the_usual_format(body: bytes) -> None:
    response = agent().post(RECONNECT, data=body, content_type="application/json")
    assert response.status_code == 400
    assert {"detail", "code"} <= response.json().keys()


# Heads.


@pytest.mark.parametrize("flood", ["one long header", "many headers", "headers without end"])
def test_flood_of_headers_is_disconnected(server: str, key: str, flood: str) -> None:
    start = head("GET", "/api/skills/", key).removesuffix(b"\r\n")
    parts = {
        "one long header": [b"X: " + b"x" * 2**20],
        "many headers": [b"X-%d: y\r\n" % number for number in range(20_000)],
        "headers without end": [b"X: " + b"y" * 60_000 + b"\r\n"] * 1000,
    }[flood]
    heard = exchange(server, start, *parts)
    assert not heard or status_of(heard) == 400
    assert httpx2.get(f"{server}/api/skills/", headers={"Authorization": f"Bearer {key}"}).status_code == 200


TARGETS = {
    "a long query": "/api/skills/?search=" + "x" * 50_000,
    "a thousand parameters": "/api/skills/?" + "&".join(f"a{number}=1" for number in range(5_000)),
    "the same parameter often": "/api/skills/?" + "&".join(["page=1"] * 900),
    "NUL in a parameter": "/api/skills/?search=%00",
    "NUL in a filter": "/api/skills/?category=%00&tag=%00",
    "NUL in a parameter's name": "/api/skills/?%00=1",
    "NUL in an id": "/api/skills/%00/",
    "NUL in a category": "/api/categories/a%00b/",
    "NUL in a path": "/api/%00/",
    "no UTF-8 in a path": "/api/skills/%ff%fe/",
    "no UTF-8 in a parameter": "/api/skills/?search=%ff%fe",
    "half a surrogate pair": "/api/skills/%ed%a0%80/",
    "half a surrogate pair in a parameter": "/api/skills/?category=%ed%a0%80",
    "half an escape": "/api/skills/%/?search=%",
    "a long id": "/api/skills/" + "x" * 50_000 + "/",
    "a number beyond all": "/api/admin/commands/" + "9" * 5_000 + "/",
    "a number beyond the column": f"/api/admin/dead-letters/{2**63}/",
    "a page beyond all": "/api/skills/?page=" + "9" * 5_000,
    "another digit": "/api/skills/?page=%D9%A1",
    "after beyond all": "/api/changes/?after=" + "9" * 18,
    "a time beyond all": "/api/admin/audit/?since=9999-12-31T23:59:59-23:59",
    "a time before all": "/api/admin/audit/?until=0001-01-01T00:00:00%2B23:59",
    "an offset that PostgreSQL has not": "/api/admin/audit/?until=0723-04-14T17:42:48%2B22:14",
    "a naive time": "/api/admin/audit/?since=0001-01-01",
    "backslashes": "/api/skills/?search=%5C%5C%25_%27%22",
    "a tsquery": "/api/skills/?search=%27%26!(a%7C%3A*%3C-%3E",
    "a format": "/api/skills/?format=api",
    "NUL in a search of the admin": "/admin/marketplace_sync/skill/?q=%00",
    "an unknown filter of the admin": "/admin/marketplace_sync/skill/?category__name__regex=((((",
    "dots": "/api/skills/../../admin/",
}


def test_random_api_paths_are_never_a_500(server: str, key: str) -> None:
    put("s1", category="c")
    for name, target in TARGETS.items():
        heard = exchange(server, head("GET", target, key))
        assert 200 <= status_of(heard) < 500, (name, heard[:500])
        if target.startswith("/api/") and status_of(heard) >= 400:
            assert json.loads(heard.partition(b"\r\n\r\n")[2]).keys() >= {"detail", "code"}, (name, heard[:500])


LISTS = (
    "auditrow/?at__gte=0723-04-14T17:42:48%2B22:14", "auditrow/?at__lt=9999-12-31T23:59:59-23:59",
    "auditrow/?at__gte=0001-01-01T00:00:00%2B23:00", "auditrow/?at__gte=x", "auditrow/?actor=%ed%a0%80",
    "skill/?category__id__exact=99999999999999999999999", "skill/?category__id__exact=%ff", "skill/?o=9.8.-7..x",
    "skill/?p=99999999999999999999999", "skill/?q=" + "x%20" * 3000, "skill/?tag=" + "x" * 5000, "skill/?all=",
    "skill/?rating=1e400", "skill/?_popup=1&_to_field=code", "skill/%00/change/", "skill/_00/change/",
    "skill/9999999999999999999999/change/", "feedchange/?run=99999999999999999999", "feedchange/?key=" + "x" * 5000,
    "syncrun/?is_clean__exact=9", "syncrun/1/change/?removals=999999999999999999", "command/?state=%ff",
    "deadletter/?q=%F0%9F%98%80&code=%27", "deadletter/9223372036854775808/replay/",
    "agent/99999999999999999999999/disable/",
)  # fmt: skip


def test_strange_admin_queries_are_never_a_500() -> None:
    fill(1)
    client = Client(raise_request_exception=False)
    client.force_login(person("root", superuser=True))
    statuses = {path: client.get(f"/admin/marketplace_sync/{path}").status_code for path in LISTS}
    assert {path: status for path, status in statuses.items() if status >= 500} == {}


LINES = (
    "Host: evil.invalid", "Host: localhost:99999", "Host: ", "Authorization: Bearer", "Authorization: Basic !!!",
    "Cookie: sessionid=" + "x" * 5000, "Cookie: csrftoken=\xff; sessionid=';--", "Accept: " + "a/b," * 1000,
    "Content-Type: \xff/\xff", "X-Forwarded-For: " + "1," * 5000, "Transfer-Encoding: gzip", "Content-Length: -1",
    "Content-Length: 1e9", "Accept-Language: " + "x" * 5000, "Range: bytes=0-18446744073709551616",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "\xe9", "TRACE"])
def test_random_request_heads_are_never_a_500(server: str, method: str) -> None:
    for line in LINES:
        host = [] if line.startswith("Host") else ["Host: localhost"]
        lines = [f"{method} {RECONNECT} HTTP/1.1", *host, line, "Connection: close", "", ""]
        heard = exchange(server, "\r\n".join(lines).encode("latin-1"))
        # Nothing is the answer to what is no HTTP.
        assert not heard or 200 <= status_of(heard) < 500, (line, heard[:500])


def test_refusal_before_any_view_has_the_format_of_the_api() -> None:
    response = Client().get("/api/skills/", headers={"Host": "evil.invalid"})
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
    assert "evil" not in response.content.decode()


# Keys.


def test_hundreds_of_invalid_keys_are_401_then_429_and_a_valid_key_still_works() -> None:
    good = agent(Maturity.STUDENT)
    bad = ApiClient("mirror_" + "0" * 64)
    statuses: dict[int, int] = {}
    shapes: Any = [f"mirror_{1:064x}", "", "\xff" * 64, "x" * 10_000, "mirror_", "'; DROP TABLE knox--", "a b c"]
    for number in range(350):
        raw = shapes[number % len(shapes)]
        response = bad.get("/api/skills/", headers={"Authorization": f"Bearer {raw}"})
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    assert statuses.keys() == {401, 429}
    assert statuses[401] <= 120  # 60 per minute, and this takes less than two minutes
    assert good.get("/api/skills/").status_code == 200
    assert AuditRow.objects.filter(outcome="refused").count() == 0


def test_session_cookie_with_nul_is_anonymous(server: str) -> None:
    for value in (
        r'"\000abcdefghijklmnop"',
        r'"abcdefgh\000ijklmnop"',
        r'"\355\240\200abcdefghijkl"',
        "a" * 4_000,
        "'",
        "%00" * 20,
    ):
        cookie = f"Cookie: sessionid={value}"
        for target, status in (("/admin/login/", 200), ("/admin/", 302), ("/api/skills/", 401), ("/metrics", 401)):
            lines = [f"GET {target} HTTP/1.1", "Host: localhost", cookie, "Connection: close", "", ""]
            heard = exchange(server, "\r\n".join(lines).encode())
            assert status_of(heard) == status, (value[:30], target, heard[:300])
