"""The overview in a real browser, with a real daemon and a marketplace that fails and recovers."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from marketplace_sync.models import AuditRow
from marketplace_sync.tests.support.admin_rows import dead_letter, person
from marketplace_sync.tests.support.browser import ask, browser_page, press, web_server
from marketplace_sync.tests.support.harness import marketplace, mirror, skill
from marketplace_sync.tests.unit.test_visible import UNSEEN, UNSEEN_HERE, WRITTEN
from marketplace_sync.visible import visible

# Pages are the same on both databases; other tests check their queries on both.
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("sqlite"),
    pytest.mark.timeout(150),
]

HOSTILE = "\u202egnp.exe <img src=x onerror=\"document.title='acted'\"><script>document.title='acted'</script>"
# The browser reports violations of this policy.
STRICT = ("Content-Security-Policy-Report-Only", "default-src 'self'; img-src 'self' data:")


class Watch:
    """Collect the errors on the page's console and the exceptions of its scripts."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.expected = False  # while the server is down, the browser logs errors
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _logged(self, message: ConsoleMessage) -> None:
        # Unfold violates the policy; violations of our own files are checked below.
        if message.type == "error" and not self.expected and "Content Security Policy" not in message.text:
            self.errors.append(message.text)


REPORT = """
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.sourceFile));
"""


async def test_changes_and_states_are_shown_without_a_reload(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as market, mirror(market, fallback_seconds=0.05, reconnect_attempts=4) as running:
        await running.until_state("live")
        with web_server(monkeypatch, headers=[STRICT]) as base:
            async with browser_page(chromium, base) as page:
                watch = Watch(page)
                await page.add_init_script(REPORT)
                await page.goto("/admin/")
                await page.evaluate("window.sameDocument = true")
                state, newest = page.locator("#mm-state"), page.locator("#mm-feed li").first
                await expect(state).to_have_text("live")
                await expect(page.locator("#mm-feed-live")).to_have_text("following")
                await expect(page.locator("#mm-chart-size canvas")).to_be_visible()

                # A change arrives with the changed fields and the name of the skill; hostile text is escaped.
                market.market.put_skill({"skill_id": "skill-00003", "name": "Skill 3", "version": "9.9.9"})
                await expect(newest).to_contain_text("version: 9.9.9")
                await expect(newest.locator("a")).to_have_text("Skill 3")
                market.market.rate("skill-00004", 1)
                await expect(newest).to_contain_text("3 ratings")
                await expect(newest.locator("a")).to_have_text("Skill 4")
                market.market.put_skill(skill(100, name=HOSTILE, category=HOSTILE[:60]))
                await expect(newest.locator("a")).to_contain_text("<img src=x onerror=")
                await expect(newest.locator("a")).to_contain_text("⟨U+202E⟩gnp")
                assert "\u202e" not in await newest.inner_text()
                await expect(page.locator("#mm-sizes")).to_contain_text("<img src=x")

                # A paused list does not change; resumed, it shows what arrived in between.
                await page.click("#mm-feed-pause")
                market.market.delete_skill("skill-00005")
                await running.until_db(lambda: dead_letter(1).pk > 0, "there is something to do")
                await expect(page.locator("#mm-todo")).to_contain_text("1 open dead letter")
                await expect(page.locator("#mm-feed")).not_to_contain_text("skill deleted")
                await page.click("#mm-feed-pause")
                await expect(newest).to_contain_text("skill deleted")
                await expect(newest).to_have_attribute("data-key", "skill-00005")

                # The marketplace fails until all reconnect attempts are used up.
                market.faults.add("accept-then-close")
                await market.drop_connections()
                await expect(state).to_have_text("suspended")
                await expect(page.locator("#mm-announcement")).to_have_text("The state is now: suspended.")
                market.faults.clear()
                await press(page, "Reconnect stream")
                await expect(page.locator("#mm-answer")).to_contain_text("done")
                await expect(state).to_have_text("live")
                assert await ask(AuditRow.objects.values_list("verb", "reason").get) == (
                    "reconnect",
                    "Reconnect stream, by hand",
                )

                assert watch.errors == []
                refused = await page.evaluate("window.refused")
                assert refused, "the policy was not tested"
                assert [each for each in refused if "/static/marketplace_sync/" in each] == []
                assert await page.title() != "acted"


async def test_page_shows_a_lost_connection_and_recovers_without_a_gap(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as market, mirror(market) as running:
        await running.until_state("live")
        with web_server(monkeypatch) as base:
            port = urlsplit(base).port or 0
            browsing = browser_page(chromium, base)
            page = await browsing.__aenter__()
            watch = Watch(page)
            await page.goto("/admin/")
            await page.evaluate("window.sameDocument = true")
            await expect(page.locator("#mm-feed-live")).to_have_text("following")
            await expect(page.locator("#mm-offline")).to_be_hidden()
            watch.expected = True
        await expect(page.locator("#mm-offline")).to_contain_text("Lost the connection to the server at")
        await expect(page.locator("#mm-feed-live")).to_contain_text("disconnected")
        for number in range(3):
            market.market.put_skill(skill(200 + number, name=f"Made meanwhile {number}"))
        await running.until_in_sync()
        with web_server(monkeypatch, port=port):
            await expect(page.locator("#mm-offline")).to_be_hidden()
            await expect(page.locator("#mm-feed-live")).to_have_text("following")
            watch.expected = False
            names = page.locator("#mm-feed li a")
            await expect(names.nth(0)).to_have_text("Made meanwhile 2")
            await expect(names.nth(1)).to_have_text("Made meanwhile 1")
            await expect(names.nth(2)).to_have_text("Made meanwhile 0")
            numbers = await page.locator("#mm-feed li").evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
            assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
            assert await page.evaluate("window.sameDocument") is True

            # After a logout the page shows a banner instead of stale data.
            watch.expected = True
            await page.context.clear_cookies()
            await expect(page.locator("#mm-offline")).to_contain_text("You are logged out")
            assert watch.errors == []
            await browsing.__aexit__(None, None, None)


async def test_browser_and_server_mark_the_same_characters(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    texts = [*WRITTEN, *(f"a{char}b" for char in UNSEEN if char != "\ud800"), *UNSEEN_HERE, " ", "\u3000"]
    await ask(person, "root", superuser=True)
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            await page.goto("/admin/")
            shown = await page.evaluate(
                "async texts => { const { visible } = await import('/static/marketplace_sync/overview/visible.js');"
                "return texts.map(visible); }",
                texts,
            )
    assert shown == [visible(text) for text in texts]
