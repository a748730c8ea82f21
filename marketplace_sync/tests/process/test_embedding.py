"""The app in a project of somebody else's, made of the snippets in `docs/embedding.md`, without `atomproject`."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marketplace_sync.tests.support.embedded_project import PAGE
from marketplace_sync.tests.support.embedding import environment, make_project, manage
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.processes import Program, until

SKILLS = 25


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


# Really started: a fork has imported before what a project of somebody else may not have.
@pytest.mark.usefixtures("real_starts")
async def test_a_project_that_follows_the_page_has_a_mirror_an_api_and_signals(
    project: Path, unused_tcp_port: int
) -> None:
    async with marketplace(SKILLS) as server:
        settings = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": server.token}
        checked = manage(project, "check", "--fail-level", "WARNING", **settings)
        assert (checked.status, checked.err) == (0, "")
        migrated = manage(project, "migrate", "--verbosity=0", **settings)
        assert (migrated.status, migrated.err) == (0, "")
        # In a thread of its own: the marketplace is in this event loop.
        once = Program([sys.executable, "manage.py", "runsync", "--once"], environment(project, **settings), project)
        try:
            ended = await once.ended()
        finally:
            once.end()
        assert ended.status == 0, ended.err
        assert f"{SKILLS} skills listed: {SKILLS} created" in ended.out
        heard = re.findall(r"^shop heard: (\w+) (\S+)$", ended.out, re.MULTILINE)
        assert sum(kind == "skill_created" for kind, _ in heard) == SKILLS
        assert len(heard) == len(set(heard))
        assert server.token not in ended.out + ended.err
    key = json.loads(manage(project, "createagent", "shopper", "--maturity", "STUDENT", "--json").out)["key"]
    await _use_the_api(project, unused_tcp_port, key)


async def _use_the_api(project: Path, port: int, key: str) -> None:
    command = [sys.executable, "-m", "uvicorn", "asgi:application", "--port", str(port), "--lifespan", "off"]
    web = Program(command, environment(project), project)
    try:
        await until(lambda: "Uvicorn running" in web.err or not web.running, "the web server runs")
        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
            # The project's own API is open to anybody; that opens nothing of ours.
            assert (await client.get("/api/skills/")).status_code == 401
            assert (await client.get("/api/schema/")).status_code == 401
            client.headers["Authorization"] = f"Bearer {key}"
            assert (await client.get("/api/skills/")).json()["count"] == SKILLS
            refused = await client.post("/api/admin/sync/trigger/")
            assert (refused.status_code, refused.json()["code"]) == (403, "maturity_required")
            assert "paths" in (await client.get("/api/schema/")).json()
            assert (await client.get("/admin/login/")).status_code == 200
    finally:
        web.end()


def test_the_project_around_this_app_is_not_needed(project: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import marketplace_sync, atomproject"], cwd=project, env=environment(project),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "No module named 'atomproject'" in ran.stderr


@pytest.mark.parametrize(
    ("line", "id_", "named"),
    [
        ('INSTALLED_APPS.remove("unfold.apps.BasicAppConfig")', "E090", "unfold"),
        ("REST_FRAMEWORK = {}", "E091", "DEFAULT_SCHEMA_CLASS"),
        ("MIGRATION_MODULES = {}", "E091", "MIGRATION_MODULES"),
    ],
)
def test_the_check_names_what_was_left_out(project: Path, line: str, id_: str, named: str) -> None:
    with (project / "settings.py").open("a") as settings:
        settings.write(f"\n{line}\n")
    ran = manage(project, "check", "--tag", "marketplace_sync")
    assert ran.status == 1
    assert f"marketplace_sync.{id_}" in ran.err, ran.err
    assert named in ran.err


def test_the_page_names_every_signal_with_its_arguments() -> None:
    from django.dispatch import Signal

    from marketplace_sync import signals

    there = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    row = r"^\| `(\w+)` \| (`[^|]+`) \| [^|]+ \|"
    documented: dict[str, Any] = dict(re.findall(row, PAGE.read_text(), re.MULTILINE))
    assert documented.keys() == there
