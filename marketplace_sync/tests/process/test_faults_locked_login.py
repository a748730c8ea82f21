"""A login and an action while the database is write-locked."""

import time

import httpx2
import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from marketplace_sync.tests.database.test_faults_locked import write_locked
from marketplace_sync.tests.process.test_faults_web import site
from marketplace_sync.tests.support.live_feed import ask
from marketplace_sync.tests.support.processes import Environment

pytestmark = pytest.mark.django_db(transaction=True)


def a_person(name: str, password: str) -> None:
    """Create a superuser whose password a web server can check with its own settings."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.PBKDF2PasswordHasher"]):
        get_user_model().objects.create_superuser(name, password=password)


@pytest.mark.usefixtures("sqlite")
async def test_login_and_action_are_answered_with_503_in_time(program_environment: Environment) -> None:
    await ask(a_person, "ada", "a-long-password")
    async with site(program_environment()) as served:
        login = f"http://127.0.0.1:{served.port}/admin/login/"
        async with httpx2.AsyncClient(timeout=40, trust_env=False) as browser:
            page = await browser.get(login)
            token = page.cookies["csrftoken"]
            form = {"username": "ada", "password": "a-long-password", "csrfmiddlewaretoken": token}
            locking = write_locked()
            await ask(locking.__enter__)
            try:
                began = time.monotonic()
                answer = await browser.post(login, data=form, headers={"Referer": login})
                action = await served.browser.post("/api/admin/websocket/reconnect/", json={"reason": "x"})
                took = time.monotonic() - began
            finally:
                await ask(locking.__exit__, None, None, None)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "The database is locked" in answer.text
            assert (action.status_code, action.json()["code"]) == (503, "database_locked")
            assert int(action.headers["Retry-After"]) > 0
            assert took < 20  # two requests of 5 s each
            again = await browser.post(login, data=form, headers={"Referer": login})
            assert again.status_code == 302
        assert "Traceback" not in served.program.err
