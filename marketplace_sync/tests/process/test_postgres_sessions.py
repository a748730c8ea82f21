"""Settings of the sessions on PostgreSQL, whatever `DATABASE_URL`, the role and the database bring of their own."""

import json
import sys
from urllib.parse import urlencode

import pytest
from django.db import connection

from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import MANAGE, Program
from marketplace_sync.tests.support.processes import Environment as Settings

# What a process of this project finds on its connection.
ASKED = """
import json, django
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    found = {}
    for name in ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "search_path"):
        cursor.execute("SELECT current_setting(%s)", [name])
        found[name] = cursor.fetchone()[0]
print(json.dumps(found))
"""


async def session(environment: dict[str, str], before: str = "") -> dict[str, str]:
    program = Program([sys.executable, "-c", before + ASKED], environment, MANAGE.parent)
    try:
        ended = await program.ended()
    finally:
        program.end()
    assert ended.status == 0, ended.err
    found: dict[str, str] = json.loads(ended.out)
    return found


def run_sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.usefixtures("postgres")
class TestSessionSettings:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ("", {}),
            ("-c search_path=elsewhere,public", {"search_path": "elsewhere,public"}),
            ("-csearch_path=elsewhere --lock_timeout=5s", {"search_path": "elsewhere", "lock_timeout": "5s"}),
        ],
    )
    async def test_options_of_the_url_leave_our_timeouts(
        self, program_environment: Settings, options: str, expected: dict[str, str]
    ) -> None:
        environment = program_environment()
        if options:
            environment["DATABASE_URL"] += "?" + urlencode({"options": options})
        found = await session(environment)
        ours = {"idle_in_transaction_session_timeout": "8s", "lock_timeout": "20s", "statement_timeout": "0"}
        assert found == {"search_path": '"$user", public', **ours, **expected}

    async def test_settings_of_the_database_are_kept(self, program_environment: Settings) -> None:
        alter = f'ALTER DATABASE "{connection.settings_dict["NAME"]}"'
        await ask(run_sql, f"{alter} SET lock_timeout = 3000")
        try:
            found = await session(program_environment())
        finally:
            await ask(run_sql, f"{alter} RESET lock_timeout")
        assert (found["lock_timeout"], found["idle_in_transaction_session_timeout"]) == ("3s", "8s")

    @pytest.mark.parametrize("module", ["asgi", "wsgi"])
    async def test_a_web_process_sets_its_pooled_connections_too(
        self, program_environment: Settings, module: str
    ) -> None:
        found = await session(program_environment(), f"import atomproject.{module}\n")
        assert (found["lock_timeout"], found["idle_in_transaction_session_timeout"]) == ("5s", "8s")

    async def test_sessions_shared_per_transaction_are_left_as_they_are(self, program_environment: Settings) -> None:
        environment = program_environment()
        environment["DATABASE_URL"] += "?DISABLE_SERVER_SIDE_CURSORS=true"
        assert (await session(environment))["lock_timeout"] == "0"
