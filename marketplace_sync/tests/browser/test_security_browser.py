"""Every kind of page in a real browser: it keeps its Content-Security-Policy, and marketplace text stays text."""

import random
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.urls import reverse
from playwright.async_api import Browser

from marketplace_sync.models import AgentKey, Category, DeadLetter, FeedChange, Skill, SyncRun
from marketplace_sync.simulator.marketplace import Marketplace
from marketplace_sync.simulator.server import SimulatorServer
from marketplace_sync.tests.conftest import EXAMPLES
from marketplace_sync.tests.support import nasty
from marketplace_sync.tests.support.admin_rows import fill, held_run, person
from marketplace_sync.tests.support.browser import ask, browser_page, web_server
from marketplace_sync.tests.support.harness import TOKEN, mirror

# Pages are the same on both databases; other tests check their queries on both.
pytestmark = [
    pytest.mark.django_db(transaction=True), pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("sqlite"), pytest.mark.timeout(240),
]  # fmt: skip

MODELS = ("skill", "category", "syncrun", "deadletter", "command", "feedchange", "agent", "auditrow", "websocketstate")


def pages() -> Iterator[str]:
    """Yield one URL of each kind of page: lists, details, confirmations, forms."""
    yield from ("/admin/", "/admin/auth/user/", "/admin/auth/user/add/", "/admin/password_change/", "/api/docs/")
    for model in MODELS:
        yield reverse(f"admin:marketplace_sync_{model}_changelist")
    for model, row in (
        ("skill", Skill.objects.first()),
        ("category", Category.objects.first()),
        ("syncrun", SyncRun.objects.first()),
        ("deadletter", DeadLetter.objects.first()),
        ("feedchange", FeedChange.objects.first()),
    ):
        assert row is not None
        yield reverse(f"admin:marketplace_sync_{model}_change", args=(row.pk,))
    key = AgentKey.objects.select_related("user__mirror_agent").first()
    assert key is not None
    yield reverse("admin:marketplace_sync_agent_change", args=(key.agent.pk,))
    yield reverse("admin:marketplace_sync_agent_issue", args=(key.agent.pk,))


async def test_every_kind_of_page_keeps_its_content_security_policy(
    monkeypatch: pytest.MonkeyPatch, chromium: Browser
) -> None:
    await ask(person, "root", superuser=True)
    await ask(fill, 3)
    with web_server(monkeypatch) as base:
        async with browser_page(chromium, base) as page:
            watch = nasty.Watch(page)
            await watch.begin()
            for path in await ask(lambda: list(pages())):
                answer = await page.goto(path)
                assert answer is not None and answer.status == 200, path
                await page.wait_for_load_state("networkidle")
                await watch.look()
            await page.goto("/api/docs/")
            await page.locator(".opblock").first.wait_for()
            await page.context.clear_cookies()
            await page.goto("/admin/login/")
            await watch.look()
            await page.fill("[name=username]", "root")
            await page.fill("[name=password]", "secret")
            await page.click("#login-form [type=submit]")
            await page.wait_for_url("**/admin/")
            await watch.look()
    assert watch.faults == []


def some(rows: Iterable[Any]) -> list[Any]:
    """Draw the share `EXAMPLES` of rows, at least one. A failure names the page."""
    drawn = list(rows)
    return random.sample(drawn, max(1, round(len(drawn) * EXAMPLES)))


def with_traps() -> list[str]:
    """Return URLs of pages with marketplace text: every list, the share `EXAMPLES` of single pages.

    `.ci/run` opens all of them; the lists alone show each trap.
    """
    run = held_run(*Skill.objects.values_list("skill_id", flat=True))
    shown = [("skill", row.pk) for row in some(Skill.objects.all())]
    shown += [("category", row.pk) for row in some(Category.objects.all()[:: len(nasty.TRAPS) // 5])]
    shown += [("feedchange", row.pk) for row in some(FeedChange.objects.filter(kind="skill_created")[::5])]
    shown += [("deadletter", row.pk) for row in some(DeadLetter.objects.all()[:3])] + [("syncrun", run.pk)]
    lists = [reverse(f"admin:marketplace_sync_{model}_changelist") for model in MODELS]
    found = [f"{lists[0]}?q={quote(trap)}" for trap in nasty.TRAPS[:3]]
    return lists + found + [reverse(f"admin:marketplace_sync_{model}_change", args=(pk,)) for model, pk in shown]


async def test_marketplace_text_is_inert_on_every_page(monkeypatch: pytest.MonkeyPatch, chromium: Browser) -> None:
    await ask(person, "root", superuser=True)
    market = Marketplace(list(nasty.skills()), list(nasty.categories()))
    # A refused skill, whose payload is shown on the page of a dead letter.
    market.put_skill({"skill_id": "refused", "name": nasty.TRAPS[0] * 50, "description": nasty.TRAPS[1]})
    async with SimulatorServer(market, token=TOKEN, requests_per_minute=0, connects_per_minute=0) as server:
        async with mirror(server) as running:
            await running.until_state("live")
            assert await running.ask(Skill.objects.count) == len(nasty.TRAPS)
            paths = await running.ask(with_traps)
            with web_server(monkeypatch) as base:
                async with browser_page(chromium, base) as page:
                    watch = nasty.Watch(page)
                    await watch.begin()
                    for path in paths:
                        answer = await page.goto(path)
                        assert answer is not None and answer.status == 200, path
                        await watch.look()
