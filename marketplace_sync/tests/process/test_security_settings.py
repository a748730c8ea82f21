"""Security settings as a process reads them."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atomproject.login import login_limits
from marketplace_sync.tests.process.test_settings_of_programs import manage
from marketplace_sync.tests.support.processes import run_program

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]

HTTPS = {
    "DJANGO_HTTPS": "true", "DJANGO_BEHIND_PROXY": "true", "ATOM_SAAS_API_URL": "https://api.atomsaas.com",
    "ATOM_SAAS_API_TOKEN": "11111111-2222-4333-8444-555555555555", "DJANGO_ALLOWED_HOSTS": "mirror.example.com",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fresh_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    login_limits.clear()
    yield
    login_limits.clear()


# HTTPS.


def test_deployment_check_passes_with_https() -> None:
    ran = manage("check", "--deploy", "--fail-level", "WARNING", **HTTPS)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "System check identified no issues (1 silenced).\n"


def test_deployment_check_without_https_lists_what_is_missing() -> None:
    ran = manage("check", "--deploy", **{**HTTPS, "DJANGO_HTTPS": "false"})
    assert {"security.W004", "security.W008", "security.W012", "security.W016"} <= set(
        re.findall(r"security\.W\d+", ran.err)
    )


def test_forwarded_protocol_is_trusted_only_behind_a_proxy() -> None:
    code = (
        "import django; django.setup(); from django.test import Client;"
        "answer = Client().get('/admin/login/', headers={'Host': 'mirror.example.com', 'X-Forwarded-Proto': 'https'});"
        "print(answer.status_code, answer.get('Strict-Transport-Security'), answer.cookies.output())"
    )
    environment = {**os.environ, **HTTPS, "DATABASE_URL": "", "DJANGO_SETTINGS_MODULE": "atomproject.settings"}
    ran = {}
    for proxy in ("true", "false"):
        ran[proxy] = run_program([sys.executable, "-c", code], {**environment, "DJANGO_BEHIND_PROXY": proxy}).out
    assert ran["true"].startswith("200 max-age=31536000; includeSubDomains")
    assert "Secure" in ran["true"] and "SameSite=Lax" in ran["true"]
    assert ran["false"].startswith("301 None")


def test_debug_page_of_an_unreachable_database_shows_no_password(tmp_path: Path) -> None:
    code = (
        "import django; django.setup(); from django.test import Client;"
        "answer = Client(raise_request_exception=False).get('/admin/', headers={'Cookie': 'sessionid=' + 'x' * 32});"
        "print(answer.status_code, answer.content.decode())"
    )
    environment = {
        **os.environ, "DJANGO_DEBUG": "true", "DJANGO_SETTINGS_MODULE": "atomproject.settings",
        "DATABASE_URL": "postgres://me:s3cr3t-of-db@127.0.0.1:1/mirror",
        "REDIS_URL": "redis://:s3cr3t-of-redis@127.0.0.1:1/0",
        "DJANGO_SECRET_KEY": "s3cr3t-that-signs-0123456789-0123456789-0123456789-abcdef",
        "ATOM_SAAS_API_TOKEN": "s3cr3t-token-0123456789", "DJANGO_ALLOWED_HOSTS": "testserver",
    }  # fmt: skip
    ran = run_program([sys.executable, "-c", code], environment)
    assert ran.out.startswith("500 "), ran.err
    assert "OperationalError" in ran.out and "CHANNEL_LAYERS" in ran.out
    assert "s3cr3t" not in ran.out + ran.err
