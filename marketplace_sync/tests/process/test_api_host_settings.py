"""The API's answers in a project with settings of its own for the REST framework."""

import json
import sys

import pytest

from marketplace_sync.api import throttles
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.tests.database.test_api_times import EDGES, READS, TIME, set_all_times_to, times_in
from marketplace_sync.tests.support.processes import Environment, run_program

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]


@pytest.fixture(autouse=True)
def _unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttles, "requests_of_actors", SlidingWindow(10**9, 1.0))


def test_rest_framework_settings_of_the_project_do_not_change_answers(program_environment: Environment) -> None:
    """In a process of its own: the framework reads some of its settings once, when it is imported."""
    set_all_times_to(EDGES[0])
    script = """
import json, os, django
from django.conf import settings
import atomproject.settings as ours
values = {name: getattr(ours, name) for name in dir(ours) if name.isupper()}
values["TIME_ZONE"] = "Pacific/Auckland"
values["REST_FRAMEWORK"] = {
    "DATETIME_FORMAT": "%d.%m.%Y", "DATE_FORMAT": "%d", "UNICODE_JSON": False, "COMPACT_JSON": False,
    "STRICT_JSON": False,
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning", "ALLOWED_VERSIONS": ["7"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
    "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
    "EXCEPTION_HANDLER": "nowhere.handler", "NON_FIELD_ERRORS_KEY": "oops", "DEFAULT_PAGINATION_CLASS": None,
}
settings.configure(**values)
django.setup()
from django.test import Client
from django.contrib.auth import get_user_model
client = Client(headers={"host": "localhost", "accept": "application/json; version=1"})
client.force_login(get_user_model().objects.create_superuser("host", password="x"))
for path in PATHS:
    answer = client.get(path)
    print(json.dumps([path, answer.status_code, answer.content.decode()]))
""".replace("PATHS", repr(READS))
    done = run_program([sys.executable, "-c", script], program_environment())
    assert done.status == 0, done.err
    answers = [json.loads(line) for line in done.out.splitlines()]
    assert len(answers) == len(READS)
    for path, status, content in answers:
        assert status == 200, (path, content)
        found = [value for _, value in times_in(json.loads(content)) if value is not None]
        assert found and all(TIME.fullmatch(value) for value in found), (path, found)
        assert ": " not in content[:12], "compact as ever"
