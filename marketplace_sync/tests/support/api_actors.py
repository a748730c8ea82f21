"""Actors of every kind and what they may ask for, for the tests of the API."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from marketplace_sync.governance.actions import DisableAgent, IssueKey, RegisterAgent, RevokeKey
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import AgentKey, Category, Skill

Answer = Any


class ApiClient(Client):
    """Django's, with CSRF enforced as in a browser, and JSON bodies."""

    def __init__(self, key: str = "") -> None:
        super().__init__(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {key}"} if key else {})

    def ask(self, path: str, body: object = None, **options: Any) -> Answer:
        """POST this body as JSON, with the CSRF token of the session where there is one."""
        token = "t" * 32
        self.cookies["csrftoken"] = token
        headers = {"X-CSRFToken": token} | options.pop("headers", {})
        if body is None:
            return self.post(path, content_type="application/json", data=b"", headers=headers, **options)
        return self.post(path, data=body, content_type="application/json", headers=headers, **options)


def new_key(name: str, maturity: Maturity) -> tuple[AgentKey, str]:
    """Return a registered agent and its key."""
    RegisterAgent(name, maturity, actor=COMMAND_LINE).perform()
    issued = IssueKey(name, actor=COMMAND_LINE).perform()
    return issued.key, issued.raw


def agent(maturity: Maturity = Maturity.AUTONOMOUS) -> ApiClient:
    """Return an agent with a good key."""
    return ApiClient(new_key(f"a-{maturity.lower()}", maturity)[1])


def person(name: str = "ada", *, permitted: bool = False, **flags: bool) -> ApiClient:
    """Somebody with a session."""
    user = get_user_model().objects.create_user(name, **flags)
    if permitted:
        user.user_permissions.add(Permission.objects.get(codename="manage_sync"))
    client = ApiClient()
    client.force_login(user)
    return client


def with_expired_key() -> ApiClient:
    key, raw = new_key("late", Maturity.AUTONOMOUS)
    AgentKey.objects.filter(pk=key.pk).update(expiry=timezone.now() - timedelta(seconds=1))
    return ApiClient(raw)


def with_revoked_key() -> ApiClient:
    key, raw = new_key("gone", Maturity.AUTONOMOUS)
    RevokeKey(key.pk, actor=COMMAND_LINE).perform()
    return ApiClient(raw)


def of_disabled_agent() -> ApiClient:
    _, raw = new_key("off", Maturity.AUTONOMOUS)
    DisableAgent("off", actor=COMMAND_LINE).perform()
    return ApiClient(raw)


@dataclass(frozen=True)
class Who:
    """A kind of actor; `maturity` is what they count as, `None` for nobody."""

    name: str
    make: Callable[[], ApiClient]
    maturity: Maturity | None


EVERYONE = (
    Who("nobody", ApiClient, None),
    Who("bad key", lambda: ApiClient("mirror_" + "0" * 64), None),
    Who("expired key", with_expired_key, None),
    Who("revoked key", with_revoked_key, None),
    Who("key of a disabled agent", of_disabled_agent, None),
    *(Who(f"{level} agent", lambda level=level: agent(level), level) for level in Maturity),
    Who("plain account", person, Maturity.STUDENT),
    Who("staff without the permission", lambda: person(is_staff=True), Maturity.STUDENT),
    Who("permission without staff", lambda: person(permitted=True), Maturity.STUDENT),
    Who("staff with the permission", lambda: person(is_staff=True, permitted=True), Maturity.AUTONOMOUS),
    Who("superuser", lambda: person(is_superuser=True), Maturity.AUTONOMOUS),
)


def put(skill_id: str = "s1", category: str | None = None, **fields: Any) -> Skill:
    """Return a skill in the mirror."""
    row = Category.objects.get_or_create(name=category)[0] if category else None
    return Skill.objects.create(
        skill_id=skill_id, category=row, synced_at=timezone.now(), **{"name": skill_id.title()} | fields
    )
