"""The app in a project with a mind of its own: user model, admin site, router, transactions, time zone and language."""

import json
import re
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marketplace_sync.tests.support.embedding import environment, make_project, manage
from marketplace_sync.tests.support.harness import marketplace
from marketplace_sync.tests.support.processes import Program, until

SKILLS = 25
MARKETPLACE = {"ATOM_SAAS_API_URL": "http://127.0.0.1:1", "ATOM_SAAS_API_TOKEN": "a-token-of-nobody"}
# A user model without user names, of UUIDs, with rules of its own, and with a field called like our agents.
MODELS = """
import uuid
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models

class People(BaseUserManager):
    def create_user(self, email, *, shift, password=None):
        raise TypeError("nobody calls this for an agent")

    def create_superuser(self, email, password=None):
        user = self.model(email=email, is_superuser=True, is_staff=True)
        user.set_password(password)
        user.save()
        return user

    def get_queryset(self):
        return super().get_queryset().exclude(email__endswith=".invalid")

class User(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    badge = models.CharField(max_length=80)
    agent = models.CharField(max_length=20, blank=True)
    is_staff = models.BooleanField(default=False)
    objects = People()
    USERNAME_FIELD = "email"

    class Meta:
        constraints = [models.UniqueConstraint(models.functions.Lower("badge"), name="badge_once")]
"""
ADMIN = """
from django.contrib import admin
from marketplace_sync.admin.sites import register
from shop.models import User

class Backoffice(admin.AdminSite):
    site_header = "The back office"

backoffice = Backoffice(name="backoffice")

@admin.register(User, site=backoffice)
@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    list_display = ("email", "of_the_shop")
    fields = ("email", "is_staff")

    @admin.display(description="Of the shop")
    def of_the_shop(self, user):
        return "yes, of the shop"

register(backoffice)
"""
ROUTERS = """
class Router:
    def db_for_read(self, model, **hints):
        return "archive" if model._meta.app_label == "archive" else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return app_label == "archive" if db == "archive" else None
"""
SETTINGS = """
AUTH_USER_MODEL = "shop.User"
DATABASES["default"]["ATOMIC_REQUESTS"] = True
DATABASES["archive"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "archive.sqlite3"}
DATABASE_ROUTERS = ["shop.routers.Router"]
TIME_ZONE = "Asia/Kolkata"
LANGUAGE_CODE = "de"
USE_THOUSAND_SEPARATOR = True
DATETIME_FORMAT = "d.m.Y"
LOGIN_URL = "backoffice:login"
MIDDLEWARE.append("django.middleware.locale.LocaleMiddleware")
REST_FRAMEWORK |= {"DATETIME_FORMAT": "%d.%m.%Y", "UNAUTHENTICATED_USER": None,
    "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning"}
"""
URLS = """
from shop.admin import backoffice

urlpatterns[0] = path("backoffice/", backoffice.urls)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_project(tmp_path)
    (folder / "shop/models.py").write_text(MODELS)
    (folder / "shop/admin.py").write_text(ADMIN)
    (folder / "shop/routers.py").write_text(ROUTERS)
    with (folder / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    with (folder / "urls.py").open("a") as urls:
        urls.write(URLS)
    made = manage(folder, "makemigrations", "shop", "--verbosity=0")
    assert made.status == 0, made.err
    return folder


def run(project: Path, *arguments: str, **settings: str) -> str:
    ended = manage(project, *arguments, **{**MARKETPLACE, **settings})
    assert (ended.status, ended.err) == (0, ""), ended.err
    return ended.out


def rows(project: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(project / "shop.sqlite3")) as file:
        return file.execute(sql).fetchall()


@asynccontextmanager
async def web(project: Path, port: int, *options: str) -> AsyncIterator[httpx2.AsyncClient]:
    command = [sys.executable, "-m", "uvicorn", "asgi:application", "--port", str(port), "--lifespan", "off", *options]
    server = Program(command, environment(project), project)
    try:
        await until(lambda: "Uvicorn running" in server.err or not server.running, "the web server runs")
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, follow_redirects=False
        ) as client:
            yield client
    except BaseException:
        sys.stderr.write(server.err)
        raise
    finally:
        server.end()


async def test_the_mirror_leaves_a_project_as_it_is_and_works_in_it(project: Path, unused_tcp_port: int) -> None:
    async with marketplace(SKILLS) as server:
        settings = {"ATOM_SAAS_API_URL": server.api_url, "ATOM_SAAS_API_TOKEN": server.token}
        run(project, "check", "--fail-level", "WARNING", "--database", "default", "--database", "archive", **settings)
        run(project, "migrate", "--verbosity=0")
        run(project, "migrate", "--verbosity=0", "--database", "archive")
        once = Program([sys.executable, "manage.py", "runsync", "--once"], environment(project, **settings), project)
        try:
            ended = await once.ended()
        finally:
            once.end()
        assert ended.status == 0, ended.err
    key = json.loads(run(project, "createagent", "night-watch", "--maturity", "AUTONOMOUS", "--json"))["key"]
    student = json.loads(run(project, "createagent", "pupil", "--maturity", "STUDENT", "--json"))["key"]
    assert "pupil is registered already" in manage(project, "createagent", "pupil", "--maturity", "STUDENT").err
    assert rows(project, "SELECT email, badge FROM shop_user ORDER BY email") == [
        ("night-watch@agent.invalid", "agent:night-watch"),
        ("pupil@agent.invalid", "agent:pupil"),
    ]
    superuser = ("createsuperuser", "--noinput", "--email", "boss@shop.example")
    run(project, *superuser, "--verbosity=0", DJANGO_SUPERUSER_PASSWORD="of-the-boss-93")
    async with web(project, unused_tcp_port) as client:
        await _use_the_api(project, client, key, student)
        await _use_the_pages(project, client)


async def _use_the_api(project: Path, client: httpx2.AsyncClient, key: str, student: str) -> None:
    good, poor = ({"Authorization": f"Bearer {each}"} for each in (key, student))
    assert (await client.get("/api/skills/")).status_code == 401
    skills = (await client.get("/api/skills/", headers=good)).json()
    assert skills["count"] == SKILLS
    one = skills["results"][0]
    for name in ("synced_at", "remote_updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", one[name]), one[name]
    for verb in ("websocket/reconnect", "sync/trigger"):
        refused = await client.post(f"/api/admin/{verb}/", headers=poor)
        assert (refused.status_code, refused.json()["code"]) == (403, "maturity_required")
    asked = await client.post("/api/admin/sync/trigger/", headers=good)
    assert asked.status_code == 202, asked.text
    places = (
        "skills/", f"skills/{one['skill_id']}/", "categories/", "changes/", "admin/sync/status/", "admin/sync/runs/",
        "admin/websocket/status/", "admin/audit/", f"admin/commands/{asked.json()['id']}/",
    )  # fmt: skip
    for place in places:
        answer = await client.get(f"/api/{place}", headers=good)
        assert answer.status_code == 200, place
        times = re.findall(r'"(\d\d\.\d\d\.\d{4}[^"]*|\d{4}-\d\d-\d\dT[^"]*)"', answer.text)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", each) for each in times), (place, times)
    assert rows(
        project, "SELECT actor, verb, allowed FROM marketplace_sync_auditrow WHERE actor_kind = 'agent' ORDER BY id"
    ) == [
        ("agent:pupil", "reconnect", 0),
        ("agent:pupil", "sync", 0),
        ("agent:night-watch", "sync", 1),
    ]


async def _use_the_pages(project: Path, client: httpx2.AsyncClient) -> None:
    login = await client.get("/backoffice/login/")
    token = client.cookies.get("csrftoken") or re.findall(r'csrfmiddlewaretoken" value="(\w+)"', login.text)[0]
    form = {"username": "boss@shop.example", "password": "of-the-boss-93", "csrfmiddlewaretoken": token}
    assert (await client.post("/backoffice/login/", data=form)).status_code == 302
    index = await client.get("/backoffice/")
    assert "The back office" in index.text and "/backoffice/marketplace_sync/skill/" in index.text
    people = await client.get("/backoffice/shop/user/")
    assert "yes, of the shop" in people.text
    for model in ("skill", "category", "feedchange", "syncrun", "websocketstate", "agent", "auditrow", "command"):
        page = await client.get(f"/backoffice/marketplace_sync/{model}/")
        assert page.status_code == 200, model
        assert 'href="/admin/' not in page.text, model
    for model in ("skill", "syncrun", "agent", "auditrow"):
        pk = rows(project, f"SELECT max(id) FROM marketplace_sync_{model}")[0][0]
        page = await client.get(f"/backoffice/marketplace_sync/{model}/{pk}/change/")
        assert page.status_code == 200, model
        assert 'href="/admin/' not in page.text, model
    pressed = {"csrfmiddlewaretoken": client.cookies.get("csrftoken") or token, "reason": "to see"}
    done = await client.post("/backoffice/marketplace_sync/websocketstate/reconnect/", data=pressed)
    assert done.status_code == 302 and done.headers["Location"].startswith("/backoffice/"), done.text[-2000:]
    run(project, "shell", "-v0", "-c", "from shop.models import User; User.objects.update(is_superuser=False)")
    refused = await client.post("/backoffice/marketplace_sync/websocketstate/reconnect/", data=pressed)
    assert refused.status_code == 403
    assert rows(project, "SELECT actor, allowed FROM marketplace_sync_auditrow ORDER BY id DESC LIMIT 2") == [
        ("user:boss@shop.example", 0),
        ("user:boss@shop.example", 1),
    ]
