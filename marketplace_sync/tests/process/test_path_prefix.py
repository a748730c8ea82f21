"""The site below a path of its own: `uvicorn --root-path /mirror` behind an nginx that takes the path away."""

import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from django.test import Client
from websockets.asyncio.client import connect

from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.support.admin_rows import person
from marketplace_sync.tests.support.live_feed import agent_key, ask, new_pen, put
from marketplace_sync.tests.support.processes import MANAGE, Environment, Program

# What is tested here does not depend on the database; its queries are tested on both by other tests.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sqlite")]

SITE = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{ access_log off; {kept}
  server {{ listen 127.0.0.1:{port};
    location /mirror/ {{
      proxy_pass http://127.0.0.1:{behind}/; proxy_set_header Host $http_host; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
    }}
  }}
}}
"""


@pytest.fixture
async def site(
    program_environment: Environment, tmp_path: Path, unused_tcp_port_factory: object
) -> AsyncIterator[httpx2.AsyncClient]:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        without_service("nginx")
        return
    port, behind = unused_tcp_port_factory(), unused_tcp_port_factory()  # type: ignore[operator]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    kept = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(SITE.format(folder=tmp_path, kept=kept, port=port, behind=behind))
    command = [
        sys.executable, "-m", "uvicorn", "atomproject.asgi:application", "--port", str(behind), "--lifespan", "off",
        "--root-path", "/mirror",
    ]  # fmt: skip
    web = Program(command, program_environment(), MANAGE.parent)
    proxy = Program([found, "-e", "stderr", "-c", str(tmp_path / "nginx.conf")], program_environment(), tmp_path)
    try:
        await web.prints("Uvicorn running")
        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:
            yield client
    except BaseException:
        sys.stderr.write(web.err + proxy.err)
        raise
    finally:
        proxy.end()
        web.end()


def log_in() -> tuple[str, str]:
    """Return the cookie of a superuser's session."""
    client = Client()
    client.force_login(person("root", superuser=True))
    return "sessionid", client.cookies["sessionid"].value


async def test_everything_is_found_below_the_path(site: httpx2.AsyncClient) -> None:
    pen = await ask(new_pen)
    await ask(pen.write, put("s1"), put("s2"), put("s3"))
    key = await ask(agent_key)
    # Pages, and all that they load and link to.
    first = await site.get("/mirror/")
    assert (first.status_code, first.headers["Location"]) == (302, "/mirror/admin/")
    unknown = await site.get("/mirror/admin/")
    assert unknown.headers["Location"].startswith("/mirror/admin/login/")
    login = await site.get(unknown.headers["Location"])
    assert 'action="/mirror/admin/login/' in login.text
    site.cookies.set(*await ask(log_in))
    page = await site.get("/mirror/admin/")
    assert "'unsafe-eval'" in page.headers["Content-Security-Policy"]  # what the path of the pages needs
    addresses = set(re.findall(r'(?:href|src|action|hx-get)="(/[^"]*)"', page.text))
    assert {address for address in addresses if not address.startswith("/mirror/")} == set()
    for address in sorted(address for address in addresses if "logout" not in address):
        assert (await site.get(address)).status_code == 200, address
    configured = json.loads(re.findall(r'id="mm-page" type="application/json">(.*?)</script>', page.text)[0])
    for name in ("now", "figures", "names"):
        assert (await site.get(configured[name])).status_code == 200, name
    # The feed, at the address that the page gives its script.
    assert configured["feed"] == "/mirror/ws/changes/"
    header = {"Authorization": f"Bearer {key}"}
    url = f"ws://{site.base_url.netloc.decode()}{configured['feed']}?after=0"
    async with connect(url, additional_headers=header, proxy=None) as feed:
        assert json.loads(await feed.recv())["type"] == "changes"
    # The API: each link that it gives leads on.
    for first_page in ("?page_size=1", "?page_size=1&cursor="):
        listed = (await site.get(f"/mirror/api/skills/{first_page}", headers=header)).json()
        assert listed["next"].startswith(f"{site.base_url}/mirror/api/skills/".replace("//mirror", "/mirror"))
        assert (await site.get(listed["next"], headers=header)).status_code == 200
    moved = await site.get("/mirror/api/skills", headers=header)
    assert (moved.status_code, moved.headers["Location"]) == (301, "/mirror/api/skills/")
    schema = (await site.get("/mirror/api/schema/", headers=header)).json()
    assert schema["servers"] == [{"url": "/mirror"}]
    docs = await site.get("/mirror/api/docs/")
    for address in re.findall(r'(?:href|src)="(/[^"]*)"', docs.text):
        assert (await site.get(address)).status_code == 200, address
    assert (await site.get("/mirror/health/live")).status_code == 200
    lost = await site.get("/mirror/nowhere/")
    assert lost.status_code == 404
    assert not [each for each in re.findall(r'(?:href|src)="(/[^"]*)"', lost.text) if not each.startswith("/mirror/")]
