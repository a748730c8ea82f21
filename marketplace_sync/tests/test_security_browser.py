"""Every kind of page in a real browser: within its Content-Security-Policy, and deaf to what the marketplace wrote."""

from collections.abc import Iterator

import pytest
from django.urls import reverse

from marketplace_sync.models import AgentKey, Category, DeadLetter, FeedChange, Skill, SyncRun
from marketplace_sync.tests import nasty
from marketplace_sync.tests.admin_rows import agent, dead_letter, fill, person
from marketplace_sync.tests.test_admin_browser import ask, browser_page, web_server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(240)]

MODELS = ("skill", "category", "syncrun", "deadletter", "command", "feedchange", "agent", "auditrow", "websocketstate")


def pages() -> Iterator[str]:
    """One address of each kind of page: lists, details, questions, forms."""
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
    key = AgentKey.objects.select_related("user__agent").first()
    assert key is not None
    yield reverse("admin:marketplace_sync_agent_change", args=(key.agent.pk,))
    yield reverse("admin:marketplace_sync_agent_issue", args=(key.agent.pk,))


async def test_every_kind_of_page_keeps_its_policy_and_runs_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    await ask(person, "root", superuser=True)
    await ask(fill, 3)
    with web_server(monkeypatch) as base:
        async with browser_page(base) as page:
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
    assert watch.faults == []
