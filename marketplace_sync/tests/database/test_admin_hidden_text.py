"""Invisible characters are marked on every admin page, in every value of the marketplace."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from marketplace_sync.models import Category, HeldRemoval, Skill, SyncRun, WebSocketState
from marketplace_sync.tests.support.admin_rows import fill, person
from marketplace_sync.visible import has_unseen

pytestmark = pytest.mark.django_db

HIDDEN = "pay\u200bpal\u202e\u2066\u00ad\u3164\u2800\ufe0f\U000e0041\x1b"
MARK = '<span class="mm-unseen" title="hangul filler">⟨U+3164⟩</span>'
# Columns with values of our own programs.
OURS = {"state", "kind", "source", "action", "outcome", "verb", "actor_kind", "maturity", "code", "command", "digest",
        "head", "required", "actual", "updated_stamp", "rating_stamp", "fingerprint"}  # fmt: skip


@pytest.fixture
def root(client: Client) -> Client:
    fill(1)
    for model in (*(m for m in admin.site._registry if m._meta.app_label == "marketplace_sync"), HeldRemoval):
        texts = {
            field.name: HIDDEN
            for field in model._meta.concrete_fields
            if isinstance(field, models.CharField | models.TextField) and field.name not in OURS
        }
        if model._meta.model_name not in (
            "auditrow",
            "agent",
        ):  # immutable; names of a-z only
            first = model._base_manager.order_by("pk").values_list("pk", flat=True).first()
            model._base_manager.filter(pk=first).update(**texts)
    Skill.objects.update(
        skill_id=HIDDEN, code=f"import os{HIDDEN}", command=HIDDEN, tags=[HIDDEN], python_packages=[HIDDEN],
        npm_packages=[HIDDEN], metadata={HIDDEN: HIDDEN}, extra={HIDDEN: [HIDDEN]},
    )  # fmt: skip
    WebSocketState.objects.update_or_create(
        pk=1, defaults={"state": "polling", "disconnect_reason": HIDDEN, "state_since": timezone.now()}
    )
    client.force_login(person("root", superuser=True))
    return client


def addresses() -> Iterator[str]:
    yield reverse("admin:index")
    yield reverse("overview:now") + "?all=1"
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield reverse(f"{name}_changelist")
        row = model._base_manager.order_by("pk").first()
        if row is not None and model is not WebSocketState:
            yield reverse(f"{name}_change", args=(row.pk,))


def left_in(body: str) -> str:
    """Return the invisible characters of a page. The data for scripts is escaped as JSON."""
    return "".join(char for char in re.sub(r"[\n\t\r]", "", body) if has_unseen(f"x{char}x"))


def test_no_page_contains_an_unmarked_invisible_character(root: Client) -> None:
    for address in addresses():
        answer = root.get(address)
        assert answer.status_code in (200, 302), address  # the user of an agent has no page
        lines = [line for line in answer.content.decode().splitlines() if left_in(line)]
        assert lines == [], address


def test_page_of_a_skill_marks_every_value(root: Client) -> None:
    body = root.get(reverse("admin:marketplace_sync_skill_change", args=(Skill.objects.get().pk,))).content.decode()
    # Name, title, description, version, id, category, tag, code, two packages, metadata and extra twice each, language.
    assert body.count(MARK) >= 13
    assert body.count("hidden text</span>") >= 9
    assert "<title>pay⟨U+200B⟩pal" in re.sub(r"<title>\s+", "<title>", body)


def test_page_marks_ids_and_names_of_removals_on_hold(root: Client) -> None:
    body = root.get(reverse("admin:marketplace_sync_syncrun_change", args=(SyncRun.objects.get().pk,))).content.decode()
    assert body.count(MARK) >= 2


def test_filter_marks_its_own_value(root: Client) -> None:
    body: Any = root.get(reverse("admin:marketplace_sync_skill_changelist"), {"tag": HIDDEN}).content.decode()
    assert MARK in body.split("filter-tag", 1)[1]


def test_category_filter_marks_names(root: Client) -> None:
    Category.objects.create(name="second")
    body = root.get(reverse("admin:marketplace_sync_skill_changelist")).content.decode()
    assert "⟨U+200B⟩" in body.split('id="changelist-filter"', 1)[1]
