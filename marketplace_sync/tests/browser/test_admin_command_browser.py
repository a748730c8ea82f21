"""The page of a command in a real browser, with a real daemon: the answer appears without a reload."""

from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, expect

from marketplace_sync.models import Command, DeadLetter, Skill, SyncRun
from marketplace_sync.tests.support.admin_rows import dead_letter, person
from marketplace_sync.tests.support.browser import ask, browser_page, press, web_server
from marketplace_sync.tests.support.harness import Mirror, marketplace, mirror

# Pages are the same on both databases; other tests check their queries on both.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("sqlite"),
    pytest.mark.timeout(120),
]


async def held_run(server: object, running: Mirror) -> int:
    """Let 30 of 60 skills go missing and return the sync run that has their removals on hold."""
    for number in range(30):
        server.market.delete_skill(f"skill-{number:05}", announce=False)  # type: ignore[attr-defined]
    answer = await running.command(Command.Action.SYNC)
    return int(answer.result["run"])


def slow(server: object) -> None:
    """Slow the next full sync down, so that a page shows it running."""
    server.faults.add("slow-body", times=1, match="/api/v1/skills?", seconds=2.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_approval_shows_its_answer_and_links_to_both_runs(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser, scripts: bool
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace(skills=60) as server, mirror(server) as running:
        await running.until_state("live")
        run = await held_run(server, running)
        with web_server(monkeypatch) as base:
            async with browser_page(chromium, base, scripts=scripts) as page:
                await page.goto(f"/admin/marketplace_sync/syncrun/{run}/change/")
                slow(server)
                await press(page, "Delete 30 skills")
                answer = page.locator(".mm-answer")
                await expect(answer).to_contain_text("Target: sync run")
                await expect(answer).to_contain_text("deleted 30 skills")
                await expect(answer.locator(".mm-badge")).to_have_text("done")
                shown = [
                    await page.title(),
                    await page.locator("h1").first.inner_text(),
                    await page.locator("#now").inner_text(),
                ]
                assert not [text for text in shown if "pending" in text or "accepted" in text]
                done_by = await running.ask(SyncRun.objects.latest, "id")
                await answer.get_by_role("link", name=f"sync run {run}", exact=True).click()
                await expect(page.locator(".mm-state .mm-badge")).to_have_text("approved")
                await page.go_back()
                await answer.get_by_role("link", name=f"sync run {done_by.pk}", exact=True).click()
                await expect(page).to_have_url(f"{base}/admin/marketplace_sync/syncrun/{done_by.pk}/change/")
        assert await running.ask(Skill.objects.count) == 30


async def test_failed_approval_links_to_the_failed_run(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace(skills=60) as server, mirror(server) as running:
        await running.until_state("live")
        run = await held_run(server, running)
        server.faults.add("http-500")
        with web_server(monkeypatch) as base:
            async with browser_page(chromium, base) as page:
                await page.goto(f"/admin/marketplace_sync/syncrun/{run}/change/")
                await press(page, "Delete 30 skills")
                answer = page.locator(".mm-answer")
                await expect(answer.locator(".mm-badge")).to_have_text("failed")
                failed = await running.ask(SyncRun.objects.latest, "id")
                await expect(answer.get_by_role("link", name=f"sync run {failed.pk}", exact=True)).to_be_visible()
                await expect(answer.get_by_role("link", name=f"sync run {run}", exact=True)).to_be_visible()
        assert await running.ask(Skill.objects.count) == 60


async def test_dismissal_and_replay_show_their_answers(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace(skills=60) as server, mirror(server) as running:
        await running.until_state("live")
        run = await held_run(server, running)
        dead = await running.ask(dead_letter, 1)
        with web_server(monkeypatch) as base:
            async with browser_page(chromium, base) as page:
                answer = page.locator(".mm-answer")
                await page.goto(f"/admin/marketplace_sync/syncrun/{run}/change/")
                await press(page, "Keep 30 skills")
                await expect(answer).to_contain_text("30 skills are kept")
                await page.goto(f"/admin/marketplace_sync/deadletter/{dead.pk}/change/")
                await press(page, "Replay dead letter")
                await expect(answer.locator(".mm-badge")).to_have_text("done")
                await answer.get_by_role("link", name=f"dead letter {dead.pk}").click()
                await expect(page.locator(".mm-facts").first).to_contain_text("replayed")
        assert await running.ask(DeadLetter.objects.filter(state="replayed").count) == 1


async def test_command_without_a_daemon_is_shown_until_it_has_expired(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    dead = await ask(dead_letter, 1)
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            await page.goto(f"/admin/marketplace_sync/deadletter/{dead.pk}/change/")
            await press(page, "Replay dead letter")
            await expect(page.locator(".mm-answer")).to_contain_text("No daemon is running")
            await ask(expire_all)
            await expect(page.locator(".mm-answer .mm-badge")).to_have_text("expired")
            assert await page.locator("#now[hx-get]").count() == 0  # it no longer polls
            for width, height in ((1300, 900), (390, 844)):
                await page.set_viewport_size({"width": width, "height": height})
                assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def expire_all() -> None:
    Command.objects.update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
