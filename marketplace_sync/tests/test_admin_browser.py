"""The WebSocket page in a real browser, against a real daemon: what an operator presses is done, and is told."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from shutil import which
from typing import Any

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from django.db import connections
from playwright.async_api import Page, async_playwright, expect

from marketplace_sync.models import AuditRow, Command
from marketplace_sync.tests.admin_rows import dead_letter, person
from marketplace_sync.tests.conftest import without_service
from marketplace_sync.tests.harness import marketplace, mirror

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]

# As root Chromium needs --no-sandbox; the rest keeps it from asking its makers for anything.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE_MS = 20_000
HOME = "/admin/marketplace_sync/websocketstate/"


async def ask(question: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a function that uses the database, in a thread that keeps no connection afterwards."""

    def asked() -> Any:
        try:
            return question(*args, **kwargs)
        finally:
            connections.close_all()

    return await sync_to_async(asked)()


@contextmanager
def web_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The project under uvicorn in a thread of its own, on a free port; its address."""
    from atomproject.asgi import application

    # Each request has a thread of its own, with which an open connection would be lost.
    monkeypatch.setitem(connections.databases["default"], "CONN_MAX_AGE", 0)
    config = uvicorn.Config(application, port=0, lifespan="off", ws="none", http="h11", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="web server")
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the web server has ended"
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@asynccontextmanager
async def browser_page(base: str, *, scripts: bool = True) -> AsyncIterator[Page]:
    """A page of Chromium, logged in as the superuser `root`; fails when it asked another host for anything."""
    found = which("chromium") or which("chromium-browser") or which("google-chrome")
    if found is None:
        without_service("Chromium")
    foreign: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        context = await chromium.new_context(base_url=base, java_script_enabled=scripts)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("request", lambda asked: None if asked.url.startswith((base, "data:")) else foreign.append(asked.url))
        await page.goto("/admin/login/")
        await page.fill("[name=username]", "root")
        await page.fill("[name=password]", "secret")
        await page.click("#login-form [type=submit]")
        await page.wait_for_url("**/admin/")
        yield page
        await chromium.close()
    assert foreign == []


async def press(page: Page, label: str) -> None:
    """Unfold a button, say why, and press it."""
    asking = page.locator("details.mm-ask", has=page.locator("summary", has_text=label))
    await asking.locator("summary").click()
    await asking.locator("textarea").fill(f"{label}, by hand")
    await asking.locator("button").click()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_disable_enable_reconnect_and_sync_are_done_and_told(
    monkeypatch: pytest.MonkeyPatch, scripts: bool
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        with web_server(monkeypatch) as base:
            async with browser_page(base, scripts=scripts) as page:
                await page.goto(HOME)
                state = page.locator(".mm-state .mm-badge")
                answer = page.locator(".mm-answer")
                await expect(state).to_have_text("live")
                for label, ends in (
                    ("Disable", "disabled"),
                    ("Enable", "live"),
                    ("Reconnect", "live"),
                    ("Sync now", "live"),
                ):
                    await press(page, label)
                    await expect(answer).to_contain_text("done")
                    if not scripts:
                        await running.until_state(ends)
                        await page.goto(HOME)
                    await expect(state).to_have_text(ends)
        assert len(server.connects) >= 3
        audited = await running.ask(
            lambda: list(AuditRow.objects.order_by("id").values_list("verb", "reason", "outcome"))
        )
        assert audited == [
            ("disable", "Disable, by hand", "performed"),
            ("enable", "Enable, by hand", "performed"),
            ("reconnect", "Reconnect, by hand", "performed"),
            ("sync", "Sync now, by hand", "performed"),
        ]


async def test_the_disabled_stream_is_closed_within_two_seconds_and_a_resting_one_reconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as server:
        server.faults.add("accept-then-close")
        async with mirror(server, fallback_seconds=0.05, reconnect_attempts=4) as running:
            await running.until_state("resting")
            with web_server(monkeypatch) as base:
                async with browser_page(base) as page:
                    await page.goto(HOME)
                    await expect(page.locator(".mm-state")).to_contain_text("resting")
                    server.faults.clear()
                    await press(page, "Reconnect")
                    await expect(page.locator(".mm-state")).to_contain_text("live")
                    await press(page, "Disable")
                    await expect(page.locator(".mm-state")).to_contain_text("disabled")
            assert server.clients == 0
            disable = await running.ask(Command.objects.get, action="disable")
            assert (disable.finished_at - disable.requested_at).total_seconds() < 2


async def test_without_a_daemon_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    with web_server(monkeypatch) as base:
        async with browser_page(base) as page:
            await page.goto(HOME)
            await expect(page.locator(".mm-state")).to_contain_text("not running")
            await press(page, "Reconnect")
            await expect(page.locator(".mm-answer")).to_contain_text("No daemon is running")
            # Its time is over: the page finds out by itself.
            await ask(Command.objects.update, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
            await expect(page.locator(".mm-answer")).to_contain_text("expired")


async def test_dead_letters_are_discarded_in_bulk_by_keyboard_and_mouse(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    for number in range(3):
        await ask(dead_letter, number, b"<script>document.title='acted'</script>")
    with web_server(monkeypatch) as base:
        async with browser_page(base) as page:
            await page.goto("/admin/marketplace_sync/deadletter/")
            boxes = page.locator("input.action-select")
            await boxes.nth(0).check()
            await boxes.nth(1).check()
            await page.select_option("#changelist-actions select[name=action]", "discard")
            await page.click("#changelist-actions button[type=submit]")
            await page.locator("textarea[name=reason]").focus()
            await page.keyboard.type("known fault")
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("2 dead letters discarded.")).to_be_visible()
            await page.locator("#result_list th a").first.click()
            assert "acted" not in await page.title()
    assert await ask(AuditRow.objects.filter(verb="discard_dead_letter", reason="known fault").count) == 2
