"""What `manage.py check` and the daemon refuse of the project around the app."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import models
from django.db.models.functions import Lower
from django.test.utils import isolate_apps

from marketplace_sync.governance.agent_users import fields_without_value, new_user
from marketplace_sync.tests.support.embedding import make_project, manage

ROUTER = """
class Router:
    def {method}(self, *args, **hints):
        return {answer}
"""


OWN_DEFAULT_SITE = """INSTALLED_APPS[0] = "shop.sites.OwnConfig"
INSTALLED_APPS.insert(0, "unfold")"""
OWN_SITE = """
from django.contrib.admin.apps import AdminConfig

class OwnConfig(AdminConfig):
    default_site = "shop.sites.Own"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_project(tmp_path)
    (folder / "shop/sites.py").write_text(OWN_SITE)
    with (folder / "settings.py").open("a") as settings:
        settings.write('\nDATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": "other.sqlite3"}\n')
    return folder


def append(project: Path, text: str, name: str = "settings.py") -> None:
    with (project / name).open("a") as file:
        file.write(f"\n{text}\n")


@pytest.mark.parametrize(
    ("method", "answer", "named"),
    [
        ("db_for_read", '"other"', "read from 'other'"),
        ("db_for_write", '"other"', "written to 'other'"),
        ("db_for_write", '"other" if args[0]._meta.app_label == "auth" else None', "auth.User is written to 'other'"),
        ("allow_relation", "False", "may not refer to auth.User"),
        ("allow_migrate", 'args[1] != "marketplace_sync"', "not migrated in 'default'"),
    ],
)
def test_a_router_that_sends_the_mirror_elsewhere_is_refused(
    project: Path, method: str, answer: str, named: str
) -> None:
    append(project, ROUTER.format(method=method, answer=answer), "routers.py")
    append(project, 'DATABASE_ROUTERS = ["routers.Router"]')
    checked = manage(project, "check", "--tag", "marketplace_sync")
    assert checked.returncode == 1
    assert "marketplace_sync.E092" in checked.stderr and named in checked.stderr, checked.stderr
    settings = {"ATOM_SAAS_API_URL": "http://127.0.0.1:1", "ATOM_SAAS_API_TOKEN": "a-token-of-nobody"}
    started = manage(project, "runsync", "--once", **settings)
    assert started.returncode == 1
    assert named in started.stderr and "Traceback" not in started.stderr, started.stderr


@pytest.mark.parametrize(
    ("change", "id_", "named"),
    [
        ('DATABASES["default"]["AUTOCOMMIT"] = False', "E094", "AUTOCOMMIT"),
        # An admin site of its own, under the templates of unfold.
        ('INSTALLED_APPS[0:0] = ["unfold.apps.BasicAppConfig"]', "E095", "'admin'"),
        (OWN_DEFAULT_SITE, "E095", "shop.sites.Own"),
        ('INSTALLED_APPS.append("unfold")', "E095", "drops the pages"),
    ],
)
def test_what_would_break_the_project_is_refused_with_a_hint(project: Path, change: str, id_: str, named: str) -> None:
    if "INSTALLED_APPS" in change:
        append(project, 'INSTALLED_APPS.remove("unfold.apps.BasicAppConfig")')
    append(project, change)
    checked = manage(project, "check", "--tag", "marketplace_sync")
    assert f"marketplace_sync.{id_}" in checked.stderr and named in checked.stderr, checked.stderr
    assert "HINT" in checked.stderr


def test_unfold_may_have_the_whole_admin(project: Path) -> None:
    append(project, 'INSTALLED_APPS.remove("unfold.apps.BasicAppConfig")\nINSTALLED_APPS.insert(0, "unfold")')
    assert "E095" not in manage(project, "check").stderr


def test_this_project_passes_its_own_checks(settings: Any) -> None:
    settings.ATOM_SAAS_API_URL, settings.ATOM_SAAS_API_TOKEN = "https://market.example", "a-token-for-checks"
    assert run_checks(tags=["marketplace_sync"]) == []


class TestUserModels:
    @pytest.fixture(autouse=True)
    def _registry(self) -> Iterator[None]:
        with isolate_apps("marketplace_sync"):
            yield

    def test_what_an_agent_has_no_value_for_is_named(self) -> None:
        class Clerk(AbstractBaseUser):
            number = models.CharField(max_length=100, unique=True)
            born = models.DateField()
            boss = models.ForeignKey("self", models.CASCADE)
            since = models.DateTimeField(auto_now_add=True)
            left = models.DateField(null=True)
            floor = models.IntegerField(default=0)
            note = models.TextField()
            USERNAME_FIELD = "number"

            class Meta:
                app_label = "marketplace_sync"

        assert fields_without_value(Clerk) == ["born", "boss"]

    def test_every_text_that_must_be_unique_gets_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Clerk(AbstractBaseUser):
            number = models.CharField(max_length=100, unique=True)
            mail = models.EmailField()
            card = models.CharField(max_length=100)
            desk = models.CharField(max_length=100)
            USERNAME_FIELD = "number"

            class Meta:
                app_label = "marketplace_sync"
                unique_together: ClassVar = [("desk", "number")]
                constraints: ClassVar = [models.UniqueConstraint(Lower("mail"), name="mail_once")]

        monkeypatch.setattr("marketplace_sync.governance.agent_users.get_user_model", lambda: Clerk)
        user = new_user("bot")
        assert (user.number, user.mail, user.card, user.desk) == ("agent:bot", "bot@agent.invalid", "", "agent:bot")
        assert not user.has_usable_password()

    def test_djangos_own_user_needs_nothing_else(self) -> None:
        assert fields_without_value(User) == []


def test_a_user_model_that_needs_more_is_refused(project: Path) -> None:
    model = (
        "from django.contrib.auth.models import AbstractUser\nfrom django.db import models\n\n"
        "class User(AbstractUser):\n    born = models.DateField()\n"
    )
    append(project, model, "shop/models.py")
    append(project, 'AUTH_USER_MODEL = "shop.User"')
    checked = manage(project, "check", "--tag", "marketplace_sync")
    assert "marketplace_sync.E093" in checked.stderr and "born" in checked.stderr, checked.stderr


def test_a_user_name_too_long_for_the_users_is_a_clear_error(project: Path) -> None:
    model = (
        "from django.contrib.auth.models import AbstractUser\nfrom django.core.exceptions import ValidationError\n\n"
        "class User(AbstractUser):\n    def save(self, *args, **kwargs):\n"
        '        raise ValidationError("only on Mondays")\n'
    )
    append(project, model, "shop/models.py")
    append(project, 'AUTH_USER_MODEL = "shop.User"')
    manage(project, "makemigrations", "shop")
    assert manage(project, "migrate", "--verbosity=0").returncode == 0
    made = manage(project, "createagent", "bot", "--maturity", "STUDENT", "--json")
    assert made.returncode == 1
    assert "only on Mondays" in made.stderr and "Traceback" not in made.stderr, made.stderr
    with pytest.raises(ValueError):
        json.loads(made.stdout)
