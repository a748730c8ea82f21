"""The URL of a list accepts only what the list offers, and no value in it ends as a 500."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.handlers.exception import convert_exception_to_response
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from marketplace_sync.models import Category, DeadLetter, Skill
from marketplace_sync.tests.support.admin_rows import fill, person

pytestmark = pytest.mark.django_db

LISTS = sorted(admin.site._registry, key=lambda model: model._meta.label)
LOOKUPS = ("", "exact", "icontains", "in", "iregex", "gt", "year", "has_key", "contains", "code__contains")
REGEX = "(a+)+$"
VALUES = ("", "9" * 5000, "a\x00", "a " * 1000, "0001-01-01T00:00:00+14:00", REGEX)


def address(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def lookups(model: Any) -> Iterator[str]:
    """Yield every field of the model with every lookup, and regular expressions on related fields."""
    for field in model._meta.get_fields():
        yield from (f"{field.name}__{lookup}" if lookup else field.name for lookup in LOOKUPS)
        if field.is_relation and field.related_model:
            yield from (f"{field.name}__{other.name}__regex" for other in field.related_model._meta.get_fields())


def filters(model: Any) -> Iterator[str]:
    """Yield the parameters of the list's own filters."""
    for each in admin.site._registry[model].list_filter:
        if isinstance(each, str):
            yield from (f"{each}__{lookup}" for lookup in ("exact", "isnull", "gte"))
        else:
            yield each.parameter_name


def status_of_view(model: Any, user: Any, parameters: dict[str, str]) -> int:
    """Return the status of the list's view without session and middleware, which cost more than the view."""
    request = RequestFactory().get(address(model), parameters)
    request.user = user
    request._messages = CookieStorage(request)
    return convert_exception_to_response(admin.site._registry[model].changelist_view)(request).status_code


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(person("root", superuser=True))
    client.raise_request_exception = False
    return client


def test_account_without_permissions_cannot_query_by_regular_expression(client: Client) -> None:
    fill(1)
    Skill.objects.update(code="a" * 60 + "!")  # some 2 ** 60 steps for a backtracking matcher
    client.force_login(person("nobody-special"))
    with CaptureQueriesContext(connection) as asked:
        for name in ("code__regex", "code__iregex", "name__regex", "metadata__iregex", "category__name__regex"):
            answer = client.get(address(Skill), {name: REGEX})
            assert answer.status_code in (302, 400), name
    assert not [query for query in asked.captured_queries if "REGEXP" in query["sql"] or " ~ " in query["sql"]]


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model._meta.label)
def test_list_refuses_lookups_that_it_does_not_offer(root: Client, model: Any) -> None:
    fill(1)
    if model._meta.model_name == "websocketstate":  # no list: its parameters are its own
        return
    asked = set(lookups(model)) - set(filters(model))
    assert len(asked) > 20
    assert root.get(address(model), {min(asked): "1"}).status_code in (302, 400)
    user = get_user(root)
    taken = {name for name in asked if status_of_view(model, user, {name: "1"}) not in (302, 400)}
    assert taken == set()


@pytest.mark.parametrize("model", LISTS, ids=lambda model: model._meta.label)
def test_no_value_in_a_url_ends_as_a_server_error(root: Client, model: Any) -> None:
    fill(1)
    failed = [
        (name, value[:40])
        for name in ("q", "o", "p", *filters(model))
        for value in VALUES
        if root.get(address(model), {name: value}).status_code >= 500
    ]
    assert failed == []


@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:30])
def test_no_value_fails_the_admin_s_own_pages(root: Client, value: str) -> None:
    fill(1)
    skill = Skill.objects.get().pk
    complete = {"app_label": "marketplace_sync", "model_name": "skill", "field_name": "category"}
    asked = [
        ("/admin/autocomplete/", {**complete, "term": value}),
        ("/admin/autocomplete/", {**complete, "page": value}),
        ("/admin/autocomplete/", {**complete, "field_name": value}),
        ("/admin/autocomplete/", {**complete, "model_name": value}),
        ("/admin/search/", {"s": value}),
        ("/admin/search/", {"s": "skill", "page": value, "extended": "1"}),
        (f"/admin/marketplace_sync/skill/{skill}/history/", {"p": value}),
        (f"/admin/marketplace_sync/skill/{skill}/change/", {"_to_field": value, "_changelist_filters": value}),
        (f"/admin/marketplace_sync/skill/{skill}/delete/", {"_to_field": value}),
        ("/admin/login/", {"next": value}),
        ("/admin/overview/now/", {"command": value, "all": value}),
        ("/admin/overview/figures/", {"after": value}),
        ("/admin/overview/names/", {"key": value}),
    ]
    assert [path for path, query in asked if root.get(path, query).status_code >= 500] == []


def test_unknown_filter_shows_a_message(root: Client) -> None:
    fill(1)
    answer = root.get(address(Skill), {"name__regex": "x"}, follow=True)
    assert answer.redirect_chain == [("/admin/marketplace_sync/skill/?e=1", 302)]
    assert "This list has no filter name__regex" in answer.content.decode()


def test_long_search_is_refused_with_its_limit(root: Client) -> None:
    Category.objects.create(name="x")
    for text, limit in (("word " * 9, "8 words"), ("a" * 201, "200 characters")):
        answer = root.get(address(Category), {"q": text})
        assert answer.status_code == 400
        assert limit in answer.content.decode()


def test_bulk_action_with_an_unknown_filter_is_a_bad_request(root: Client) -> None:
    fill(1)
    ticked = {"action": "discard", "select_across": "1", "_selected_action": [DeadLetter.objects.get().pk]}
    assert root.post(f"{address(DeadLetter)}?head__regex=x", ticked).status_code == 400
