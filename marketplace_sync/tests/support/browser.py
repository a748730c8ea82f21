"""Chromium in front of the project's own web server, for tests of the admin's pages."""

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from shutil import which
from typing import Any

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client
from playwright.async_api import Browser, Page, async_playwright, expect

from marketplace_sync.tests.conftest import without_service

# As root Chromium needs --no-sandbox; the rest keeps it from asking its makers for anything.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 20_000


async def ask(question: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function that uses the database, in a thread that keeps no connection afterwards."""

    def asked() -> Any:
        try:
            return question(*args, **kwargs)
        finally:
            connections.close_all()

    return await sync_to_async(asked)()


@contextmanager
def web_server(
    monkeypatch: pytest.MonkeyPatch, *, port: int = 0, headers: Sequence[tuple[str, str]] = ()
) -> Iterator[str]:
    """Yield the project under uvicorn in a thread of its own, on that port or a free one; its address.

    `headers` go with every answer.
    """
    from atomproject.asgi import application

    # Each request has a thread of its own, with which an open connection would be lost.
    monkeypatch.setitem(connections.databases["default"], "CONN_MAX_AGE", 0)
    config = uvicorn.Config(
        application, http="h11", lifespan="off", log_config=None, timeout_graceful_shutdown=2, headers=list(headers)
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, args=([listener],), name="web server")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the web server has ended"
            thread.join(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield a Chromium; its tests skip where there is none."""
    found = which("chromium") or which("chromium-browser") or which("google-chrome")
    if found is None:
        without_service("Chromium")
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        await browser.close()


@asynccontextmanager
async def browser_page(browser: Browser, base: str, *, scripts: bool = True) -> AsyncIterator[Page]:
    """Yield a page with cookies of its own, logged in as the superuser `root`; fails when it asked another host."""
    foreign: list[str] = []
    context = await browser.new_context(base_url=base, java_script_enabled=scripts)
    try:
        await context.add_cookies([{"name": "sessionid", "value": await ask(session_of, "root"), "url": base}])
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda asked: None if asked.url.startswith((base, "data:")) else foreign.append(asked.url))
        yield page
    finally:
        await context.close()
    assert foreign == []


def session_of(name: str) -> str:
    """Log a user in and return the key of the session: the login page costs as much as a test."""
    client = Client()
    client.force_login(get_user_model().objects.get_by_natural_key(name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


async def press(page: Page, label: str) -> None:
    """Unfold a button, give a reason, and press it."""
    asking = page.locator("details.mm-action", has=page.locator("summary", has_text=label))
    await asking.locator("summary").click()
    await asking.locator("textarea").fill(f"{label}, by hand")
    await asking.locator("button").click()
