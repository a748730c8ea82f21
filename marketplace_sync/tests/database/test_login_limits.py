"""The limits of logins stop guesses on every path, and never lock the owner of an account out."""

import asyncio
import base64
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.test import Client, RequestFactory, override_settings
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.authentication import BasicAuthentication

from atomproject.login import login_limits
from atomproject.login_limits import (
    FAILURES_OF_ACCOUNT,
    FAILURES_OF_ACCOUNT_AT_ADDRESS,
    FAILURES_OF_ADDRESS,
    HASHING,
    WAITING,
    LoginBusyError,
    LoginLimits,
    LoginRefusedError,
)
from marketplace_sync.api.catalogue import SkillViewSet
from marketplace_sync.governance.sliding_window import SlidingWindow
from marketplace_sync.tests.support.admin_rows import person
from marketplace_sync.tests.support.browser import web_server
from marketplace_sync.tests.support.live_feed import ask

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh_limits() -> Iterator[None]:
    login_limits.clear()
    yield
    login_limits.clear()


class CountedHasher(PBKDF2PasswordHasher):
    """A cheap hasher that sleeps 20 ms, and records the hashes and how many ran in parallel."""

    iterations = 20
    done = 0
    running = 0
    most = 0
    lock = threading.Lock()

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        kind = CountedHasher
        with kind.lock:
            kind.running += 1
            kind.most = max(kind.most, kind.running)
        time.sleep(0.02)
        with kind.lock:
            kind.running -= 1
            kind.done += 1
        return super().encode(password, salt, iterations)

    @classmethod
    def reset(cls) -> None:
        cls.done = cls.running = cls.most = 0


COUNTED = override_settings(PASSWORD_HASHERS=[f"{__name__}.CountedHasher"])


def log_in(name: str, password: str, address: str = "127.0.0.1", **headers: str) -> Any:
    client = Client(REMOTE_ADDR=address)
    return client.post("/admin/login/", {"username": name, "password": password}, headers=headers)


# With real requests.


@COUNTED
async def test_parallel_guesses_are_counted_before_they_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    CountedHasher.reset()
    with web_server(monkeypatch) as url:
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as web:
            form = await web.get("/admin/login/")
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form.text)
            assert token
            data = {"username": "root", "password": "wrong", "csrfmiddlewaretoken": token[1]}

            async def guess(number: int) -> httpx2.Response:
                # An invented address each time, which nobody asked for.
                return await web.post("/admin/login/", data=data, headers={"X-Forwarded-For": f"203.0.113.{number}"})

            answers = await asyncio.gather(*map(guess, range(60)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert CountedHasher.done <= FAILURES_OF_ACCOUNT_AT_ADDRESS
    assert CountedHasher.most <= HASHING
    assert len(refused) >= 60 - FAILURES_OF_ACCOUNT_AT_ADDRESS
    assert {answer.status_code for answer in refused} <= {429, 503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)


def test_refused_login_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    person("root", superuser=True)
    places = login_limits._places
    taken = sum(places.acquire(blocking=False) for _ in range(HASHING + WAITING))
    try:
        answer = log_in("root", "wrong")
    finally:
        places.release(taken)
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_guesses_at_one_account_do_not_lock_out_other_accounts_of_the_address() -> None:
    person("root", superuser=True)
    person("ada")
    for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS + 2):
        log_in("root", "wrong")
    assert log_in("root", "secret").status_code == 429
    assert log_in("ada", "secret").status_code == 302


def test_guesses_from_other_addresses_lock_nobody_out() -> None:
    person("root", superuser=True)
    for last in range(FAILURES_OF_ACCOUNT // FAILURES_OF_ACCOUNT_AT_ADDRESS + 3):
        for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS):
            log_in("root", "wrong", f"203.0.113.{last}")
    assert log_in("root", "wrong", "203.0.113.1").status_code == 429
    assert log_in("root", "secret", "198.51.100.1").status_code == 302


def test_one_password_tried_on_many_names_is_limited() -> None:
    answers = [log_in(f"user-{number}", "Winter2026").status_code for number in range(FAILURES_OF_ADDRESS + 3)]
    assert answers == [200] * FAILURES_OF_ADDRESS + [429] * 3


def test_clients_behind_a_proxy_have_separate_limits() -> None:
    person("root", superuser=True)
    with override_settings(TRUSTED_PROXIES="127.0.0.1"):
        for number in range(FAILURES_OF_ACCOUNT_AT_ADDRESS + 1):
            answer = log_in("root", "wrong", **{"X-Forwarded-For": f"1.1.1.{number}, 203.0.113.9"})
        assert answer.status_code == 429
        assert log_in("root", "secret", **{"X-Forwarded-For": "198.51.100.1"}).status_code == 302


@COUNTED
def test_unknown_name_is_hashed_like_a_known_one() -> None:
    person("root", superuser=True)
    inactive = get_user_model().objects.create_user("gone", password="secret", is_active=False)
    no_password = get_user_model().objects.create_user("agent")
    assert not no_password.has_usable_password()
    for name in ("root", "nobody", inactive.get_username(), "agent"):
        CountedHasher.reset()
        answer = log_in(name, "wrong")
        assert (answer.status_code, CountedHasher.done) == (200, 1), name


def test_basic_authentication_has_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SkillViewSet, "authentication_classes", (BasicAuthentication,))
    person("ada")

    def ask(password: str) -> Any:
        basic = base64.b64encode(f"ada:{password}".encode()).decode()
        return Client().get("/api/skills/", headers={"Authorization": f"Basic {basic}"})

    assert ask("secret").status_code == 200
    assert [ask("wrong").status_code for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS)] == [401] * 10
    refused = ask("secret")
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert 1 <= int(refused["Retry-After"]) <= 60


def test_wrong_password_is_hashed_once_and_old_sessions_stay_valid() -> None:
    root = person("root", superuser=True)
    client = Client()
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/admin/").status_code == 200
    with COUNTED:
        root.set_password("secret")
        root.save()
        CountedHasher.reset()
        log_in("root", "wrong")
        assert CountedHasher.done == 1


# The limits alone.


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tried(limits: LoginLimits, account: str, address: str, *, right: bool = False) -> bool:
    """Return whether a password was checked."""
    try:
        with limits.attempt(account, address) as attempt:
            if right:
                attempt.succeed()
    except LoginRefusedError:
        return False
    return True


def test_right_password_and_database_error_are_not_counted() -> None:
    limits = LoginLimits(Clock())
    for _ in range(FAILURES_OF_ADDRESS + FAILURES_OF_ACCOUNT):
        assert tried(limits, "root", "a", right=True)
        with pytest.raises(ConnectionError), limits.attempt("root", "a"):
            raise ConnectionError
    assert tried(limits, "root", "a")


def test_known_address_is_admitted_despite_strangers() -> None:
    limits = LoginLimits(Clock())
    assert tried(limits, "root", "home", right=True)
    for number in range(1000):
        tried(limits, "root", f"stranger-{number}")
    assert not tried(limits, "root", "new")
    assert tried(limits, "root", "home", right=True)


def test_refused_attempt_does_not_extend_the_wait() -> None:
    clock = Clock()
    limits = LoginLimits(clock)
    for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS):
        assert tried(limits, "root", "a")
    for second in range(1, 60):
        clock.now = second
        assert not tried(limits, "root", "a")
    clock.now = 60
    assert tried(limits, "root", "a", right=True)


def test_login_over_the_queue_limit_is_refused_immediately() -> None:
    limits = LoginLimits(patience=30.0)
    done, inside = threading.Event(), threading.Semaphore(0)

    def hash_slowly(number: int) -> None:
        with limits.attempt(f"user-{number}", f"address-{number}"):
            inside.release()
            done.wait(20)

    workers = [threading.Thread(target=hash_slowly, args=(number,)) for number in range(HASHING + WAITING)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(HASHING):
            assert inside.acquire(timeout=20)
        while limits._places._value:  # until all of them wait
            threading.Event().wait(0.001)
        with pytest.raises(LoginBusyError) as busy, limits.attempt("root", "here"):
            pass
        assert (busy.value.status_code, busy.value.wait) == (503, 2)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    # Who was refused for this was not counted.
    for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS):
        assert tried(limits, "root", "here")


@given(
    attempts=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans(), st.floats(0, 20)), max_size=150
    )
)
def test_no_order_of_attempts_exceeds_a_limit(attempts: list[tuple[str, str, bool, float]]) -> None:
    clock = Clock()
    limits = LoginLimits(clock)
    failed: list[tuple[float, str, str]] = []
    for account, address, right, pause in attempts:
        clock.now += pause / 10
        if tried(limits, account, address, right=right) and not right:
            failed.append((clock.now, account, address))
        recent = [(name, where) for at, name, where in failed if at > clock.now - 60]
        assert recent.count((account, address)) <= FAILURES_OF_ACCOUNT_AT_ADDRESS
        assert sum(where == address for _, where in recent) <= FAILURES_OF_ADDRESS


def test_window_keeps_a_bounded_number_of_keys() -> None:
    window = SlidingWindow(2, 60.0, Clock(), most_keys=100)
    for number in range(10_000):
        window.admit(str(number))
        window.wait(f"asked-{number}")
        window.admit("busy")
        window.take_back("busy")
    assert len(window._times) <= 100
    assert window.count("9999") == 1


def test_request_without_a_client_address_is_limited() -> None:
    request = RequestFactory(REMOTE_ADDR="").get("/")
    for _ in range(FAILURES_OF_ACCOUNT_AT_ADDRESS):
        assert authenticate(request, username="root", password="wrong") is None
    with pytest.raises(LoginRefusedError):
        authenticate(request, username="root", password="wrong")
