"""What `manage.py check` and the daemon refuse of the project around the app."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.db import models
from django.db.models.functions import Lower
from django.test.utils import isolate_apps

from marketplace_sync.governance.agent_users import fields_without_value, new_user


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
