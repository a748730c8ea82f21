"""The front page in a real browser, before a real daemon and a marketplace that fails and recovers."""

from urllib.parse import urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Page, expect

from marketplace_sync.models import AuditRow
from marketplace_sync.tests.support.admin_rows import dead_letter, person
from marketplace_sync.tests.support.browser import ask, browser_page, press, web_server
from marketplace_sync.tests.support.harness import marketplace, mirror, skill
from marketplace_sync.tests.unit.test_visible import UNSEEN, UNSEEN_HERE, WRITTEN
from marketplace_sync.visible import visible

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(150)]

HOSTILE = "\u202egnp.exe <img src=x onerror=\"document.title='acted'\"><script>document.title='acted'</script>"
# What it would refuse, the browser reports.
STRICT = ("Content-Security-Policy-Report-Only", "default-src 'self'; img-src 'self' data:")


class Watch:
    """What the page said on its console, what it threw, and what of ours a strict policy would have refused."""

    def __init__(self, page: Page) -> None:
        self.faults: list[str] = []
        self.expected = False  # while the server is away the browser itself complains
        page.on("console", self._said)
        page.on("pageerror", lambda fault: self.faults.append(str(fault)))

    def _said(self, message: ConsoleMessage) -> None:
        # The policy is tried on unfold as well, which would not stand it; what it says of ours is looked at below.
        if message.type == "error" and not self.expected and "Content Security Policy" not in message.text:
            self.faults.append(message.text)


REPORT = """
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.sourceFile));
"""


async def test_what_happens_is_shown_without_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as market, mirror(market, fallback_seconds=0.05, reconnect_attempts=4) as running:
        await running.until_state("live")
        with web_server(monkeypatch, headers=[STRICT]) as base:
            async with browser_page(base) as page:
                watch = Watch(page)
                await page.add_init_script(REPORT)
                await page.goto("/admin/")
                await page.evaluate("window.sameDocument = true")
                state, newest = page.locator("#mm-state"), page.locator("#mm-feed li").first
                await expect(state).to_have_text("live")
                await expect(page.locator("#mm-feed-live")).to_have_text("following")
                await expect(page.locator("#mm-chart-size canvas")).to_be_visible()

                # A change arrives, with what changed, by the name of the skill; hostile text is text.
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

                # Paused, it stands still; then it goes on with what came meanwhile.
                await page.click("#mm-feed-pause")
                market.market.delete_skill("skill-00005")
                await running.until_db(lambda: dead_letter(1).pk > 0, "there is something to do")
                await expect(page.locator("#mm-waits")).to_contain_text("1 open dead letter")
                await expect(page.locator("#mm-feed")).not_to_contain_text("skill deleted")
                await page.click("#mm-feed-pause")
                await expect(newest).to_contain_text("skill deleted")
                await expect(newest).to_have_attribute("data-key", "skill-00005")

                # The marketplace fails; it is tried again until a person is needed.
                market.faults.add("accept-then-close")
                await market.drop_connections()
                await expect(state).to_have_text("suspended")
                await expect(page.locator("#mm-said")).to_have_text("The mirror is suspended.")
                market.faults.clear()
                await press(page, "Reconnect")
                await expect(page.locator("#mm-answer")).to_contain_text("done")
                await expect(state).to_have_text("live")
                assert await ask(AuditRow.objects.values_list("verb", "reason").get) == (
                    "reconnect",
                    "Reconnect, by hand",
                )

                assert watch.faults == []
                refused = await page.evaluate("window.refused")
                assert refused, "the policy was not tried"
                assert [each for each in refused if "/static/marketplace_sync/" in each] == []
                assert await page.title() != "acted"


async def test_a_page_that_has_lost_touch_says_so_and_recovers_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    async with marketplace() as market, mirror(market) as running:
        await running.until_state("live")
        with web_server(monkeypatch) as base:
            port = urlsplit(base).port or 0
            browsing = browser_page(base)
            page = await browsing.__aenter__()
            watch = Watch(page)
            await page.goto("/admin/")
            await page.evaluate("window.sameDocument = true")
            await expect(page.locator("#mm-feed-live")).to_have_text("following")
            await expect(page.locator("#mm-lost")).to_be_hidden()
            watch.expected = True
        await expect(page.locator("#mm-lost")).to_contain_text("Lost touch with the server at")
        await expect(page.locator("#mm-feed-live")).to_contain_text("cut off")
        for number in range(3):
            market.market.put_skill(skill(200 + number, name=f"Made meanwhile {number}"))
        await running.until_level()
        with web_server(monkeypatch, port=port):
            await expect(page.locator("#mm-lost")).to_be_hidden()
            await expect(page.locator("#mm-feed-live")).to_have_text("following")
            watch.expected = False
            names = page.locator("#mm-feed li a")
            await expect(names.nth(0)).to_have_text("Made meanwhile 2")
            await expect(names.nth(1)).to_have_text("Made meanwhile 1")
            await expect(names.nth(2)).to_have_text("Made meanwhile 0")
            numbers = await page.locator("#mm-feed li").evaluate_all("rows => rows.map(row => Number(row.dataset.seq))")
            assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
            assert await page.evaluate("window.sameDocument") is True

            # Who is logged out meanwhile is told, rather than shown what was.
            watch.expected = True
            await page.context.clear_cookies()
            await expect(page.locator("#mm-lost")).to_contain_text("You are logged out")
            assert watch.faults == []
            await browsing.__aexit__(None, None, None)


async def test_the_browser_marks_the_same_characters_as_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*WRITTEN, *(f"a{char}b" for char in UNSEEN if char != "\ud800"), *UNSEEN_HERE, " ", "\u3000"]
    await ask(person, "root", superuser=True)
    with web_server(monkeypatch) as base:
        async with browser_page(base) as page:
            shown = await page.evaluate(
                "async texts => { const { visible } = await import('/static/marketplace_sync/overview/visible.js');"
                "return texts.map(visible); }",
                texts,
            )
    assert shown == [visible(text) for text in texts]
