"""Try the wheel as another Django project would: `.venv/bin/python .ci/wheel.py`. Needs a package index.

Builds the wheel, installs it with its dependencies into an empty virtual environment, and makes a project of the
snippets of docs/embedding.md around it. There: check, migrate, runsync --once against the simulator of this checkout,
createagent, and a web server whose API and admin answer. Exit status 0, or 1 at the first failure.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from marketplace_sync.simulator import Marketplace, SimulatorServer  # noqa: E402
from marketplace_sync.tests.support.embedded_project import write_project  # noqa: E402

SKILLS = 25
START_SECONDS = 60


def main() -> int:
    """Run every step in a folder that is removed afterwards. Return the exit status."""
    with tempfile.TemporaryDirectory(prefix="mirror-wheel-") as scratch:
        folder = Path(scratch)
        try:
            python = install(build(folder), folder)
            asyncio.run(use(python, write_project(folder / "project")))
        except (subprocess.CalledProcessError, AssertionError, URLError) as error:
            output = "".join(getattr(error, name, None) or "" for name in ("stdout", "stderr"))
            print(f"wheel: {error}\n{output}", file=sys.stderr)
            return 1
    print("wheel: installed beside another project; check, migrate, runsync --once, the API and the admin work")
    return 0


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout, without leaving build files in it. Return its path."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.sqlite3*", "build", "*.egg-info")
    shutil.copytree(PROJECT, source, ignore=ignored)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)], folder)
    (wheel,) = folder.glob("*.whl")
    left_out = source_files() - set(zipfile.ZipFile(wheel).namelist())
    assert not left_out, f"not in the wheel: {sorted(left_out)}"
    return wheel


def source_files() -> set[str]:
    """Return every tracked file of the app but its tests: modules, templates, static files, migrations."""
    listed = subprocess.run(
        ["git", "ls-files", "marketplace_sync"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    return {name for name in listed.splitlines() if not name.startswith("marketplace_sync/tests/")}


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel and a web server into an empty virtual environment. Return the environment's Python."""
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    uv = shutil.which("uv")
    installer = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    run([*installer, "--quiet", str(wheel), "uvicorn[standard]"], folder)
    return python


async def use(python: Path, project: Path) -> None:
    """Use the app in the project: the commands, then the web server."""
    skills = [{"skill_id": f"s{number}", "name": f"Skill {number}", "category": "c"} for number in range(SKILLS)]
    async with SimulatorServer(Marketplace(skills)) as server:
        settings = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": server.token}

        async def manage(*arguments: str) -> str:
            return await asyncio.to_thread(run, [str(python), "manage.py", *arguments], project, **settings)

        await manage("check", "--fail-level", "WARNING")
        await manage("migrate", "--verbosity=0")
        synced = await manage("runsync", "--once")
        assert f"{SKILLS} created" in synced, synced
        key = json.loads(await manage("createagent", "shopper", "--maturity", "STUDENT", "--json"))["key"]
        await asyncio.to_thread(visit, python, project, key)


def visit(python: Path, project: Path, key: str) -> None:
    """Start the project's web server and ask it for the catalogue and the admin."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "uvicorn", "asgi:application", "--port", str(port), "--lifespan", "off"]
    web = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_for(lambda: get(f"{base}/admin/login/") is not None)
        assert json.loads(get(f"{base}/api/skills/", key) or b"{}")["count"] == SKILLS
        assert get(f"{base}/api/skills/") is None, "the API answers without a key"
        assert b"<form" in (get(f"{base}/admin/login/") or b"")
    finally:
        web.terminate()
        web.wait(timeout=30)


def wait_for(ready: Callable[[], bool]) -> None:
    """Wait until the web server answers. Raises `AssertionError` after `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if ready():
                return
        except URLError:
            pass
        assert time.monotonic() < deadline, "the web server does not answer"
        time.sleep(0.2)


def get(url: str, key: str = "") -> bytes | None:
    """Return the body of a response, `None` for one that refuses. Raises `URLError` where nobody answers."""
    request = Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urlopen(request, timeout=30) as response:
            body: bytes = response.read()
            return body
    except HTTPError as error:
        if error.code in (401, 403):
            return None
        raise


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of the project's programs, without this checkout and the developer's settings."""
    kept = ("PATH", "HOME", "LANG", "PIP_", "UV_", "SSL_")
    return {
        **{name: value for name, value in os.environ.items() if name.startswith(kept)},
        "DJANGO_SETTINGS_MODULE": "settings", **settings,
    }  # fmt: skip


def run(command: list[str], folder: Path, **settings: str) -> str:
    """Run a program and return its stdout. Raises `CalledProcessError`."""
    ran = subprocess.run(
        command, cwd=folder, env=environment(**settings), capture_output=True, text=True, timeout=600, check=True
    )
    return ran.stdout


if __name__ == "__main__":
    sys.exit(main())
