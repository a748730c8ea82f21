"""`deploy/nginx.conf` and `deploy/healthcheck.py` with a real nginx in front of two real web processes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.support.live_feed import PATH, agent_key, ask, new_pen, put
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program, until

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]

DEPLOY = MANAGE.parent / "deploy"
# A host name as in production, none that a test server would answer to anyway.
HOST = "mirror.example.com"


def uvicorn_command(port: int) -> list[str]:
    """Return the command of the image, on loopback and on that port."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    command = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])
    changed = {"python": sys.executable, "0.0.0.0": "127.0.0.1", "8000": str(port)}
    return [changed.get(word, word) for word in command]


@contextmanager
def web(port: int, environment: dict[str, str]) -> Iterator[Program]:
    program = Program(uvicorn_command(port), environment, MANAGE.parent)
    try:
        yield program
    finally:
        program.end()


@contextmanager
def nginx(listen: int, ports: tuple[int, int], folder: Path) -> Iterator[Program]:
    """Run nginx with our file, in which only the addresses are replaced."""
    found = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(found).exists():
        without_service("nginx")
    site = (DEPLOY / "nginx.conf").read_text().replace("listen 8080;", f"listen 127.0.0.1:{listen};")
    for name, port in zip(("web-1:8000", "web-2:8000"), ports, strict=True):
        site = site.replace(f"server {name} ", f"server 127.0.0.1:{port} ")
    (folder / "site.conf").write_text(site)
    kept = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr warn;\n"
        f"events {{ worker_connections 256; }}\nhttp {{ access_log off; {kept} include {folder}/site.conf; }}\n"
    )
    command = [found, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert tried.returncode == 0, tried.stderr
    program = Program(command, {}, folder)
    try:
        yield program
    finally:
        program.end()


@asynccontextmanager
async def client(port: int, key: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {key}", "Host": HOST}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as found:
        yield found


async def until_answers(port: int, key: str) -> None:
    async def answers() -> bool:
        try:
            async with client(port, key) as http:
                return (await http.get("/api/skills/")).status_code == 200
        except httpx2.TransportError:
            return False

    await until(answers, f"port {port} answers")


def healthcheck(*arguments: object, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, str(DEPLOY / "healthcheck.py"), *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stderr.strip()


async def test_a_web_process_is_killed_and_no_request_through_the_proxy_fails(
    program_environment: Environment, unused_tcp_port_factory: Callable[[], int], tmp_path: Path
) -> None:
    key, pen = await ask(agent_key), await ask(new_pen)
    await ask(pen.write, put("s1"))
    environment = program_environment(DJANGO_ALLOWED_HOSTS=f"{HOST},other.example.com")
    listen, first, second = (unused_tcp_port_factory() for _ in range(3))
    with web(first, environment) as doomed, web(second, environment), nginx(listen, (first, second), tmp_path):
        for port in (first, second, listen):
            await until_answers(port, key)
        url = f"ws://{HOST}{PATH}?after=0"
        options = {"host": "127.0.0.1", "port": listen, "additional_headers": {"Authorization": f"Bearer {key}"}}
        async with connect(url, proxy=None, **options) as feed:
            assert json.loads(await feed.recv())["changes"][0]["key"] == "s1"
        async with client(listen, key) as http:
            doomed.kill()
            for _ in range(40):
                answer = await http.get("/api/skills/s1/")
                assert (answer.status_code, answer.json()["skill_id"]) == (200, "s1")
        async with connect(url, proxy=None, **options) as feed:
            assert json.loads(await feed.recv())["changes"][0]["key"] == "s1"
        alive = healthcheck(second, environment=environment)
        lost = healthcheck(second, "/nowhere/", environment=environment)
        dead = healthcheck(first, environment=environment)
    assert alive == (0, "")
    assert lost == (1, "/nowhere/ answers 404")
    assert dead[0] == 1
    assert dead[1].startswith("/health/live does not answer: ")


async def test_https_behind_the_proxy_redirects_nobody(
    program_environment: Environment, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """With DJANGO_HTTPS, Django and the health check trust the scheme that the proxy reports."""
    key, port = await ask(agent_key), unused_tcp_port_factory()
    environment = program_environment(DJANGO_ALLOWED_HOSTS=f".{HOST}", DJANGO_HTTPS="true")
    with web(port, environment) as program:
        await program.prints("Uvicorn running")
        async with client(port, key) as http:
            assert (await http.get("/api/skills/")).status_code == 301
            by_https = {"X-Forwarded-Proto": "https"}
            assert (await http.get("/api/skills/", headers=by_https)).status_code == 200
        assert healthcheck(port, environment=environment) == (0, "")
