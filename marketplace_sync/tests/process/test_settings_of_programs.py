"""Settings as programs read them from the environment and the settings file."""

import json
import os
import sys
from pathlib import Path

import pytest

from atomproject.env import Environment
from marketplace_sync.tests.support.processes import Ended, run_program
from marketplace_sync.tests.unit.test_settings import FOLDER, SECRET


def python(*arguments: str, **environment: str) -> Ended:
    return run_program([sys.executable, *arguments], {**os.environ, **environment}, FOLDER)


def manage(*arguments: str, **environment: str) -> Ended:
    return python("manage.py", *arguments, **environment)


def test_without_settings_the_database_is_created_and_only_the_marketplace_is_missing(tmp_path: Path) -> None:
    made = manage("migrate", "--verbosity=0", DATABASE_URL=f"sqlite:///{tmp_path}/mirror.sqlite3")
    assert (made.status, made.out) == (0, "")
    warned = [line.split(")")[0] for line in made.err.splitlines() if line.startswith("?")]
    assert warned == ["?: (marketplace_sync.W001", "?: (marketplace_sync.W003"]
    assert (tmp_path / "mirror.sqlite3").stat().st_size > 0


def test_check_reports_every_error_in_one_run() -> None:
    checked = manage(
        "check", DATABASE_URL="oracle://x", REDIS_URL="http://x", DJANGO_DEBUG="maybe", DJANGO_HTTPS="2",
        DJANGO_ALLOWED_HOSTS="http://x/", LOG_LEVEL="loud", LOG_FORMAT="xml", ATOM_SAAS_PAGE_SIZE="many",
        ATOM_SAAS_API_URL="nowhere", ATOM_SAAS_PAGESIZE="5", FEED_KEEP_DAYS="",
    )  # fmt: skip
    assert checked.status == 1
    assert "Traceback" not in checked.err
    errors = {line[3:].split(")")[0][-4:] for line in checked.err.splitlines() if line.startswith("?")}
    assert errors == {"E001", "W003", "E018", "E031", "E032", "E034", "E035", "E036", "E037", "E038", "W045"}
    assert checked.err.count("HINT:") == len(errors)


def test_an_unreadable_database_url_touches_no_database() -> None:
    checked = manage("migrate", DATABASE_URL=f"postgres://me:{SECRET}@[::1/x")
    assert checked.status == 1
    assert "E031" in checked.err
    assert "Traceback" not in checked.err
    assert SECRET not in checked.err


def test_https_redirects_all_but_probes_and_keeps_cookies_to_itself() -> None:
    code = (
        "from atomproject import settings as s;"
        "print(s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS > 0, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE);"
        "import re; (exempt,) = s.SECURE_REDIRECT_EXEMPT;"
        "print(*(bool(re.search(exempt, path)) for path in ('health/live', 'mirror/health/live', 'api/health/')))"
    )
    checked = python("-c", code, DJANGO_HTTPS="true")
    assert checked.out.split() == ["True"] * 6 + ["False"]


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    """Otherwise a service would run with every default, for example on an empty mirror."""
    (problem,) = Environment({}, tmp_path / "none", required=True).problems
    assert problem.id == "marketplace_sync.E039"
    assert str(tmp_path / "none") in problem.message
    checked = manage("check", DJANGO_ENV_FILE=str(tmp_path / "none"))
    assert (checked.status, "E039" in checked.err) == (1, True)


def test_the_example_file_contains_the_defaults(tmp_path: Path) -> None:
    shown = {}
    for file in ("/dev/null", str(FOLDER / ".env.example")):
        code = (
            "import json; from atomproject import settings as s; from marketplace_sync.conf import load_config;"
            "print(json.dumps([repr(load_config(s)), s.DATABASES, s.CHANNEL_LAYERS, s.ALLOWED_HOSTS, s.DEBUG, "
            "s.LOGGING, len(s.ENVIRONMENT_PROBLEMS)]))"
        )
        shown[file] = python("-c", code, DJANGO_ENV_FILE=file, DATABASE_URL="").out
    first, second = map(json.loads, shown.values())
    assert first == second
    assert second[-1] == 0


@pytest.mark.parametrize(("line", "prefix"), [("", "/api/v1"), ("ATOM_SAAS_API_PREFIX=", ""),
                                              ("ATOM_SAAS_API_PREFIX=/market", "/market")])  # fmt: skip
def test_a_prefix_that_is_set_but_empty_is_none(line: str, prefix: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"ATOM_SAAS_API_URL=https://market.example\n{line}\n")
    code = (
        "from atomproject import settings as s; from marketplace_sync.conf import load_config;"
        "print(repr(load_config(s).api_prefix))"
    )
    ended = python("-c", code, DJANGO_ENV_FILE=str(tmp_path / "env"), DATABASE_URL="")
    assert ended.out.strip() == repr(prefix)
