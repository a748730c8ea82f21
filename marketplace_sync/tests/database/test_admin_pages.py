"""The admin pages: permissions, read-only, escaping of marketplace text, and the number of queries."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from marketplace_sync.models import Agent, DeadLetter, FeedChange, HeldRemoval, Skill, SyncRun, WebSocketState
from marketplace_sync.tests.support.admin_rows import FOREIGN, ICON, SCRIPT, agent, fill, held_run, person

pytestmark = pytest.mark.django_db

OURS = sorted(
    (model for model in admin.site._registry if model._meta.app_label == "marketplace_sync"),
    key=lambda model: str(model._meta.model_name),
)
CATALOGUE = {"skill", "category", "feedchange"}


def url(model: Any, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:marketplace_sync_{model._meta.model_name}_{page}", args=args)


def pages() -> Iterator[str]:
    """Yield every list, and the first detail page of every model."""
    for model in OURS:
        yield url(model)
        row = model.objects.order_by("pk").first()
        if row is not None and model is not WebSocketState:
            yield url(model, "change", row.pk)


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    return client


class Reader(HTMLParser):
    """Collect what a browser would act on: scripts, handlers, and attributes with a URL."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self._inline = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inline = tag == "script"
        for name, value in attrs:
            if name in ("href", "src", "action", "hx-get", "hx-post", "poster", "data", "srcset"):
                self.addresses.append(value or "")
            if name == "style" and "url(" in (value or ""):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(value or "")

    def handle_data(self, data: str) -> None:
        if self._inline:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inline = False


def read(body: str) -> Reader:
    reader = Reader()
    reader.feed(body)
    return reader


def test_every_page_renders_and_marketplace_text_is_escaped(root: Client) -> None:
    fill(2)
    seen = [*pages(), reverse("admin:index"), reverse("admin:auth_user_changelist")]
    assert len(seen) >= 2 * len(OURS)
    for page in seen:
        answer = root.get(page)
        body = answer.content.decode()
        assert answer.status_code == 200, page
        found = read(body)
        assert "<script>alert" not in body, page
        assert not any("alert(" in script for script in found.scripts), page
        for address in found.addresses:
            assert not re.match(r"\s*(javascript:|data:text|https?:|//)", address, re.IGNORECASE), (page, address)
        assert not any("alert" in handler for handler in found.handlers), page


def test_root_url_redirects_to_the_overview(root: Client) -> None:
    assert root.get("/").headers["Location"] == "/admin/"


def test_every_list_links_to_its_rows(root: Client) -> None:
    fill(1)
    for model in OURS:
        if model is not WebSocketState:
            link = f'href="{url(model, "change", model.objects.order_by("pk")[0].pk)}"'
            assert link in root.get(url(model)).content.decode(), model


def test_icon_url_and_metadata_are_shown_as_text(root: Client) -> None:
    fill(2)
    bodies = [root.get(page).content.decode() for page in pages() if "/category/" in page or "/skill/" in page]
    assert any(ICON in body for body in bodies)
    assert any(FOREIGN in body for body in bodies)


def test_code_is_shown_with_its_language(root: Client) -> None:
    fill(1)
    body = root.get(url(Skill, "change", Skill.objects.get().pk)).content.decode()
    assert '<code data-language="Python">&lt;/code&gt;&lt;script&gt;' in body


def test_payload_is_shown_as_inert_text_and_as_bytes(root: Client) -> None:
    fill(1)
    body = root.get(url(DeadLetter, "change", DeadLetter.objects.get().pk)).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<span" in body
    assert r"⟨U+0000⟩</span>\xff" in body
    assert "3c 73 63 72 69 70 74" in body


def test_bidi_control_in_a_name_is_marked(root: Client) -> None:
    fill(1)
    Skill.objects.update(name="safe\u202egnp.exe")
    body = root.get(url(Skill)).content.decode()
    assert '<bdi>safe<span class="mm-unseen" title="right-to-left override">⟨U+202E⟩</span>gnp.exe</bdi>' in body


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.model_name)
def test_rows_cannot_be_added_changed_or_deleted(root: Client, model: Any, rf: Any) -> None:
    fill(1)
    page = admin.site._registry[model]
    request: HttpRequest = rf.get("/")
    request.user = person("other", superuser=True)
    assert not page.has_add_permission(request)
    assert not page.has_change_permission(request)
    assert not page.has_delete_permission(request)
    assert "delete_selected" not in page.get_actions(request)
    row = model.objects.order_by("pk").first()
    for address in (url(model, "add"), *([url(model, "delete", row.pk)] if row else [])):
        assert root.get(address).status_code == 403
        assert root.post(address, {"post": "yes"}).status_code == 403
    if row is not None:
        answer = root.post(url(model, "change", row.pk), {"name": "x", "maturity": "AUTONOMOUS"})
        assert answer.status_code == 405
        ticked = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        root.post(url(model), ticked)
        assert model.objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.model_name)
@pytest.mark.parametrize(
    ("who", "management"),
    [("nobody", None), ("account", None), ("staff", 403), ("manager", 200), ("superuser", 200)],
)
def test_staff_see_the_catalogue_and_managers_all_pages(
    client: Client, model: Any, who: str, management: int | None
) -> None:
    fill(1)
    if who != "nobody":
        client.force_login(person("p", staff=who != "account", manages=who == "manager", superuser=who == "superuser"))
    expected = 302 if management is None else 200 if model._meta.model_name in CATALOGUE else management
    assert client.get(url(model)).status_code == expected
    row = model.objects.order_by("pk").first()
    if row is not None and model is not WebSocketState:
        assert client.get(url(model, "change", row.pk)).status_code == expected


def test_view_permission_shows_a_management_page_without_buttons(client: Client) -> None:
    from django.contrib.auth.models import Permission

    user = person("support")
    user.user_permissions.add(Permission.objects.get(codename="view_websocketstate"))
    client.force_login(user)
    answer = client.get(url(WebSocketState))
    assert answer.status_code == 200
    assert b"mm-action" not in answer.content
    assert client.get(url(SyncRun)).status_code == 403


def test_numbers_and_times_do_not_depend_on_the_language(root: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR, settings.TIME_ZONE = "de", True, "Asia/Kolkata"
    fill(3)
    run = held_run(*(f"s{number}" for number in range(1500)))
    SyncRun.objects.filter(pk=run.pk).update(started_at="2026-01-02T03:04:05Z", finished_at="2026-01-02T03:04:09Z")
    SyncRun.objects.filter(pk=run.pk).update(id=12_345)
    HeldRemoval.objects.filter(run_id=run.pk).update(run=12_345)
    body = root.get(url(SyncRun, "change", 12_345)).content.decode()
    assert "?run=12345" in body
    hidden = re.findall(r'type="hidden" name="(?!csrf)[^"]*" value="([^"]*)"', body)
    assert hidden and not any("." in value for value in hidden), hidden
    assert "2026-01-02 03:04:05Z" in body and "08:34" not in body
    overview = root.get(reverse("admin:index")).content.decode()
    assert "2026-01-02 03:04" in overview and "08:34" not in overview
    for width in re.findall(r'<rect width="([^"]*)%"', overview):
        assert re.fullmatch(r"[0-9.]+", width), width


def test_saving_a_user_keeps_permissions_of_other_apps(client: Client) -> None:
    from django.contrib.auth.models import Permission

    clerk = person("clerk")
    rights = Permission.objects.filter(codename__in=("view_user", "view_skill", "change_session"))
    clerk.user_permissions.set(rights)
    client.force_login(person("root", superuser=True))
    page = reverse("admin:auth_user_change", args=(clerk.pk,))
    shown = client.get(page).context["adminform"].form
    assert set(shown["user_permissions"].value()) == {Permission.objects.get(codename="view_skill").pk}
    manage = Permission.objects.get(codename="manage_sync")
    form = {
        "username": "clerk", "is_active": "on", "is_staff": "on", "user_permissions": [manage.pk],
        "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00",
    }  # fmt: skip
    answer = client.post(page, form)
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    kept = set(clerk.user_permissions.values_list("codename", flat=True))
    assert kept == {"view_user", "change_session", "manage_sync"}


def test_account_of_an_agent_has_no_rights_of_a_person_whatever_its_flags(client: Client) -> None:
    user = agent("climber").user
    user.is_staff = user.is_superuser = True
    user.save()
    client.force_login(user)
    assert client.get(url(Agent)).status_code == 403
    assert client.get(reverse("admin:auth_user_changelist")).status_code == 403
    assert client.get(url(Skill)).status_code == 200


def test_sidebar_links_only_to_pages_that_the_visitor_may_see(client: Client) -> None:
    client.force_login(person("viewer"))
    body = client.get(url(Skill)).content.decode()
    assert url(FeedChange) in body
    for hidden in (Agent, SyncRun, DeadLetter, WebSocketState):
        assert f'"{url(hidden)}"' not in body


def test_sidebar_counts_open_dead_letters_and_runs_on_hold(root: Client) -> None:
    fill(3)
    body = root.get(url(Skill)).content.decode()
    assert len(re.findall(r"rounded-xs[^>]*>\s*3\s*</span>", body)) == 2  # held runs, open dead letters


def test_users_of_agents_are_not_listed(root: Client) -> None:
    of_agent = agent("indexer").user
    assert "agent:indexer" not in root.get(reverse("admin:auth_user_changelist")).content.decode()
    assert root.get(reverse("admin:auth_user_change", args=(of_agent.pk,))).status_code == 302


def test_websocket_row_redirects_to_its_page(root: Client) -> None:
    answer = root.get(url(WebSocketState, "change", 1))
    assert (answer.status_code, answer["Location"]) == (302, url(WebSocketState))
    assert root.get(url(WebSocketState, "change", 2)).status_code == 404


@pytest.mark.parametrize("wrong", ["0", "x", "999999999999999999999999", "-1"])
def test_invalid_id_is_not_found(root: Client, wrong: str) -> None:
    for model in OURS:
        assert root.get(url(model, "change", wrong)).status_code == 404, model


def test_filters_match_and_unknown_filters_are_refused(root: Client) -> None:
    fill(2)
    run = SyncRun.objects.order_by("pk").first()
    assert run is not None
    assert root.get(url(Skill), {"tag": "email"}).context["cl"].result_count == 2
    assert root.get(url(Skill), {"tag": "mail"}).context["cl"].result_count == 0
    assert root.get(url(Skill), {"rating": "none"}).context["cl"].result_count == 0
    assert root.get(url(Skill), {"q": "s1"}).context["cl"].result_count == 1
    assert root.get(url(FeedChange), {"run": run.pk}).context["cl"].result_count == 1
    assert root.get(url(FeedChange), {"key": "s1"}).context["cl"].result_count == 2
    assert root.get(url(FeedChange), {"run": "nonsense"}).context["cl"].result_count == 0
    assert root.get(url(FeedChange), {"nonsense": "1"}).status_code == 302
    assert root.get(url(FeedChange), {"key": "a\0"}).status_code == 400
    fill(12)
    assert root.get(url(FeedChange), {"p": "9" * 30}).status_code == 302


def test_page_lists_names_of_removals_on_hold(root: Client) -> None:
    fill(1)
    run = held_run("s0", *(f"gone-{number:03}" for number in range(120)))
    first = root.get(url(SyncRun, "change", run.pk)).content.decode()
    assert "gone-000" in first and "gone-119" not in first
    third = root.get(url(SyncRun, "change", run.pk), {"removals": "3"}).content.decode()
    assert "gone-119" in third
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;") + " 0" in third


def test_feed_is_counted_up_to_a_limit(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(3)
    monkeypatch.setattr("marketplace_sync.admin.paging.MAX_COUNTED", 4)
    body = root.get(url(FeedChange)).content.decode()
    assert "more than 4" in body


# The queries of the list and of a detail page. 5 are the session, the account, its agent and the sidebar's two badges.
# The number does not grow with the rows.
QUERIES = {
    "agent": (7, 7), "auditrow": (7, 7), "category": (7, 9), "command": (7, 11), "deadletter": (7, 7),
    "feedchange": (7, 7), "skill": (8, 8), "syncrun": (7, 10), "websocketstate": (23, 0),
}  # fmt: skip


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.model_name)
def test_number_of_queries_is_fixed(root: Client, model: Any) -> None:
    counts = []
    for more in (3, 20):
        fill(more)
        root.get(url(model))
        with CaptureQueriesContext(
            connection,
        ) as asked:
            root.get(url(model))
        row = model.objects.order_by("pk").first()
        with CaptureQueriesContext(connection) as detail:
            if row is not None and model is not WebSocketState:
                root.get(url(model, "change", row.pk))
        counts.append((len(asked), len(detail)))
    assert counts == [QUERIES[str(model._meta.model_name)]] * 2


def test_no_list_reads_large_columns(root: Client) -> None:
    fill(2)
    with CaptureQueriesContext(connection) as asked:
        root.get(url(Skill))
        root.get(url(FeedChange))
    queries = " ".join(query["sql"] for query in asked.captured_queries)
    assert '"marketplace_sync_skill"."code"' not in queries
    assert '"marketplace_sync_skill"."metadata"' not in queries
    assert '"marketplace_sync_change"."data"' not in queries
