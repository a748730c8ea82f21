"""The WebSocket page in a real browser, with a real daemon: its buttons work, and it shows the answers."""

import asyncio
from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, Route, expect

from marketplace_sync.mirror.commands import submit_command
from marketplace_sync.models import AuditRow, Command, Skill
from marketplace_sync.tests.support.admin_rows import dead_letter, fill, person
from marketplace_sync.tests.support.browser import ask, browser_page, press, web_server
from marketplace_sync.tests.support.harness import marketplace, mirror

# Pages are the same on both databases; other tests check their queries on both.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("sqlite"),
    pytest.mark.timeout(120),
]

HOME = "/admin/marketplace_sync/websocketstate/"


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_disable_enable_reconnect_and_sync_are_executed_and_answered(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser, scripts: bool
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        with web_server(monkeypatch) as base:
            async with browser_page(chromium, base, scripts=scripts) as page:
                await page.goto(HOME)
                state = page.locator(".mm-state .mm-badge").last  # the first is the health
                answer = page.locator(".mm-answer")
                await expect(state).to_have_text("live")
                for label, ends in (
                    ("Disable stream", "disabled"),
                    ("Enable stream", "live"),
                    ("Reconnect stream", "live"),
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
            ("disable", "Disable stream, by hand", "performed"),
            ("enable", "Enable stream, by hand", "performed"),
            ("reconnect", "Reconnect stream, by hand", "performed"),
            ("sync", "Sync now, by hand", "performed"),
        ]


async def test_suspended_stream_reconnects_and_disabled_stream_closes_within_two_seconds(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as server:
        server.faults.add("accept-then-close")
        async with mirror(server, fallback_seconds=0.05, reconnect_attempts=4) as running:
            await running.until_state("suspended")
            with web_server(monkeypatch) as base:
                async with browser_page(chromium, base) as page:
                    await page.goto(HOME)
                    await expect(page.locator(".mm-state")).to_contain_text("suspended")
                    server.faults.clear()
                    await press(page, "Reconnect stream")
                    await expect(page.locator(".mm-state")).to_contain_text("live")
                    await press(page, "Disable stream")
                    await expect(page.locator(".mm-state")).to_contain_text("disabled")
            assert server.clients == 0
            disable = await running.ask(Command.objects.get, action="disable")
            assert (disable.finished_at - disable.requested_at).total_seconds() < 2


async def test_late_response_does_not_close_an_open_form(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as server, mirror(server) as running:
        await running.until_state("live")
        with web_server(monkeypatch) as base:
            async with browser_page(chromium, base) as page:
                asked, answered = asyncio.Event(), asyncio.Event()

                async def delay(route: Route) -> None:
                    asked.set()
                    await answered.wait()
                    await route.continue_()

                await page.route("**/buttons/", delay)
                await page.goto(HOME)
                await asked.wait()
                button = page.locator("details.mm-action", has=page.locator("summary", has_text="Disable"))
                await button.locator("summary").click()
                await button.locator("textarea").fill("half a reason")
                async with page.expect_response("**/buttons/"):
                    answered.set()
                await page.wait_for_function("!document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")
                await expect(button.locator("textarea")).to_have_value("half a reason", timeout=1000)
                await expect(button).to_have_attribute("open", "")


async def test_page_without_a_daemon_disables_buttons_and_shows_expiry(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            await page.goto(HOME)
            await expect(page.locator(".mm-state")).to_contain_text("not running")
            await expect(page.locator("#mm-stream-buttons button", has_text="Reconnect")).to_be_disabled()
            await expect(page.locator("#mm-stream-buttons")).to_contain_text("No daemon is running")
            command = await ask(submit_command, Command.Action.RECONNECT, by="agent:night")
            await page.goto(f"{HOME}?command={command.pk}")
            await expect(page.locator(".mm-answer")).to_contain_text("No daemon is running")
            # The command expires: the page shows it without a reload.
            await ask(Command.objects.update, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
            await expect(page.locator(".mm-answer")).to_contain_text("expired")


async def test_no_fact_overflows_its_card(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    """Times do not wrap elsewhere; beside the code the column may be too narrow for one."""
    await ask(person, "root", superuser=True)
    await ask(fill, 1)
    skill = await ask(Skill.objects.get)
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            for width in (1300, 1600):
                await page.set_viewport_size({"width": width, "height": 900})
                await page.goto(f"/admin/marketplace_sync/skill/{skill.pk}/change/")
                facts = page.locator(".mm-side .mm-facts dd")
                assert await facts.count() > 5
                wider = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
                assert await facts.evaluate_all(wider) == []


async def test_dead_letters_are_discarded_in_bulk_by_keyboard_and_mouse(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    for number in range(3):
        await ask(dead_letter, number, b"<script>document.title='acted'</script>")
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            await page.goto("/admin/marketplace_sync/deadletter/")
            boxes = page.locator("input.action-select")
            await boxes.nth(0).check()
            await boxes.nth(1).check()
            await page.select_option("#changelist-actions select[name=action]", "discard")
            await page.click("#changelist-actions button[type=submit]")
            await page.locator("textarea[name=reason]").focus()
            await page.keyboard.type("known cause")
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await expect(page.get_by_text("2 dead letters discarded.")).to_be_visible()
            await page.locator("#result_list th a").first.click()
            assert "acted" not in await page.title()
    assert await ask(AuditRow.objects.filter(verb="discard_dead_letter", reason="known cause").count) == 2
