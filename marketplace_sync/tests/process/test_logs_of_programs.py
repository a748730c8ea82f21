"""What programs log on stderr."""

import logging
import logging.handlers
import subprocess
import sys

import pytest

from marketplace_sync.logs import protect
from marketplace_sync.tests.unit.test_logs import TOKEN


@pytest.fixture(autouse=True)
def _protected() -> None:
    protect(TOKEN)


def test_uncaught_exception_of_a_program_shows_no_secret(unredacted_records: None) -> None:
    """Also shows that the tests above would fail without redaction: here nothing is installed before."""
    record = logging.getLogger("x").makeRecord("x", 10, "f", 1, "see %s", (TOKEN,), None)
    assert TOKEN in record.getMessage()
    code = (
        "import threading; from marketplace_sync.redaction import install, protect\n"
        "install(); install(); protect('tok-en-tok-en')\n"
        "def fail(): raise ValueError('no: tok-en-' + 'tok-en')\n"
        "t = threading.Thread(target=fail); t.start(); t.join()\n"
        "fail()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("ValueError: no: ***") == 2
    assert "tok-en-tok-en" not in ended.stderr


def test_a_wrong_host_is_one_warning_line() -> None:
    code = (
        "import django; django.setup(); from django.test import Client;"
        "print([Client().get(path, headers={'Host': 'evil.invalid'}).status_code"
        " for path in ('/admin/login/', '/api/skills/', '/none/')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert ended.stdout == "[400, 400, 400]\n"
    lines = ended.stderr.splitlines()
    assert len(lines) == 3
    assert all(" warning " in line and "Invalid HTTP_HOST header" in line for line in lines)
