"""Agents and their keys. Whoever manages the mirror sees them; superusers alone change them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Max, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget  # type: ignore[import-untyped]

from marketplace_sync.admin.acting import Ask, ReasonForm, act, answer, ask
from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.present import ago, badge, column, moment, text
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import (
    DisableAgent,
    EnableAgent,
    IssuedKey,
    IssueKey,
    RegisterAgent,
    RevokeKey,
    RotateKey,
    SetMaturity,
)
from marketplace_sync.governance.errors import InvalidInputError
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.models import Agent, AgentKey

HOME = "admin:marketplace_sync_agent_changelist"

LEVELS = [(level.value, level.value) for level in Maturity]


class MaturityForm(ReasonForm):
    maturity = forms.ChoiceField(choices=LEVELS, widget=UnfoldAdminSelectWidget)
    field_order: tuple[str, ...] = ("maturity", "reason")


class RegisterForm(MaturityForm):
    name = forms.CharField(
        max_length=64,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "a-z, 0-9, . _ -"}),
    )
    field_order = ("name", "maturity", "reason")


class IssueForm(ReasonForm):
    expires_in = forms.CharField(
        label="Expires in days",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "placeholder": "empty: it does not expire"}),
    )
    field_order = ("expires_in", "reason")


@admin.register(Agent)
class AgentAdmin(ManagementAdmin):
    detail_template = "admin/marketplace_sync/agent.html"
    change_list_template = "admin/marketplace_sync/agent_list.html"
    list_display = (
        column("name", text),
        column("maturity", badge),
        "standing",
        "active_keys",
        "last_used",
        column("created_at", moment, "Registered"),
        column("created_by", text, "By", order=None),
    )
    list_filter = ("maturity", "enabled")
    search_fields = ("name",)
    search_help_text = "Name"

    def get_queryset(self, request: HttpRequest) -> Any:
        active = Q(user__auth_token_set__revoked_at__isnull=True) & (
            Q(user__auth_token_set__expiry__isnull=True) | Q(user__auth_token_set__expiry__gt=timezone.now())
        )
        rows = super().get_queryset(request)
        return rows.annotate(
            active_key_count=Count("user__auth_token_set", filter=active),
            key_used_at=Max("user__auth_token_set__last_used_at"),
        )

    @admin.display(description="State", ordering="enabled")
    def standing(self, row: Agent) -> SafeString:
        return badge("enabled") if row.enabled else badge("disabled")

    @admin.display(description="Active keys")
    def active_keys(self, row: Any) -> int:
        return int(row.active_key_count)

    @admin.display(description="Last used")
    def last_used(self, row: Any) -> SafeString | str:
        return moment(row.key_used_at)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view

        def named(name: str) -> str:
            return f"marketplace_sync_agent_{name}"

        return [
            path("register/", view(self.register), name=named("register")),
            path("<int:agent_id>/maturity/", view(self.maturity), name=named("maturity")),
            path("<int:agent_id>/disable/", view(self.disable), name=named("disable")),
            path("<int:agent_id>/enable/", view(self.enable), name=named("enable")),
            path("<int:agent_id>/keys/issue/", view(self.issue), name=named("issue")),
            path("<int:agent_id>/keys/<int:key_id>/rotate/", view(self.rotate), name=named("rotate")),
            path("<int:agent_id>/keys/<int:key_id>/revoke/", view(self.revoke), name=named("revoke")),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"asks": self._register(request), **(extra_context or {})})

    # Each view: the button, the action, and what follows it.

    def register(self, request: HttpRequest) -> HttpResponse:
        def perform() -> Any:
            return act(request, RegisterAgent, request.POST.get("name", ""), request.POST.get("maturity", ""))

        def done(agent: Agent) -> HttpResponse:
            messages.success(request, f"Agent {agent.name} is registered. It needs a key to come in.")
            return HttpResponseRedirect(_page(agent.pk))

        return answer(self, request, lambda: self._register(request), perform, done, back=reverse(HOME))

    def maturity(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        level = request.POST.get("maturity", "")
        return self._change(
            request, agent, lambda: self._maturity(request, agent), lambda: act(request, SetMaturity, agent.name, level)
        )

    def disable(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        return self._change(
            request, agent, lambda: self._disable(request, agent), lambda: act(request, DisableAgent, agent.name)
        )

    def enable(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        return self._change(
            request, agent, lambda: self._enable(request, agent), lambda: act(request, EnableAgent, agent.name)
        )

    def issue(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)

        def perform() -> Any:
            return act(request, IssueKey, agent.name, expires_in=_days(request.POST.get("expires_in", "")))

        return self._new_key(request, agent, lambda: self._issue(request, agent), perform)

    def rotate(self, request: HttpRequest, agent_id: int, key_id: int) -> HttpResponse:
        agent = _agent(agent_id, key_id)
        return self._new_key(
            request, agent, lambda: self._rotate(request, agent.pk, key_id), lambda: act(request, RotateKey, key_id)
        )

    def revoke(self, request: HttpRequest, agent_id: int, key_id: int) -> HttpResponse:
        agent = _agent(agent_id, key_id)
        return self._change(
            request, agent, lambda: self._revoke(request, agent.pk, key_id), lambda: act(request, RevokeKey, key_id)
        )

    def _change(
        self, request: HttpRequest, agent: Agent, button: Callable[[], list[Ask]], perform: Callable[[], Any]
    ) -> HttpResponse:
        def done(_: Any) -> HttpResponse:
            messages.success(request, "Done.")
            return HttpResponseRedirect(_page(agent.pk))

        return answer(self, request, button, perform, done, back=_page(agent.pk))

    def _new_key(
        self, request: HttpRequest, agent: Agent, button: Callable[[], list[Ask]], perform: Callable[[], Any]
    ) -> HttpResponse:
        def done(issued: IssuedKey) -> HttpResponse:
            # In this answer and nowhere else: not in a session, a message or an address. Admin pages are never cached.
            context = self.page_context(
                request, f"New key of {agent.name}", key=issued.key, raw=issued.raw, back=_page(agent.pk)
            )
            return TemplateResponse(request, "admin/marketplace_sync/key.html", context)

        return answer(self, request, button, perform, done, back=_page(agent.pk))

    # The buttons.

    def _register(self, request: HttpRequest) -> list[Ask]:
        return ask(
            request,
            RegisterAgent,
            reverse("admin:marketplace_sync_agent_register"),
            "Makes an agent known by this name. It has no key yet.",
            form=RegisterForm,
            initial={"maturity": Maturity.STUDENT},
        )

    def _maturity(self, request: HttpRequest, agent: Agent) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_maturity", args=(agent.pk,))
        explain = "What the agent does from now on is held against the new level."
        return ask(request, SetMaturity, url, explain, form=MaturityForm, initial={"maturity": agent.maturity})

    def _disable(self, request: HttpRequest, agent: Agent) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_disable", args=(agent.pk,))
        return ask(request, DisableAgent, url, "Turns the agent away, whatever keys it has.", danger=True)

    def _enable(self, request: HttpRequest, agent: Agent) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_enable", args=(agent.pk,))
        return ask(request, EnableAgent, url, "Lets the agent in again, with the keys that it has.")

    def _issue(self, request: HttpRequest, agent: Agent) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_issue", args=(agent.pk,))
        return ask(request, IssueKey, url, "One more key. It is shown once, on the next page.", form=IssueForm)

    def _rotate(self, request: HttpRequest, agent_id: int, key_id: int) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_rotate", args=(agent_id, key_id))
        return ask(request, RotateKey, url, "A new key of the same life span; this one is revoked at once.")

    def _revoke(self, request: HttpRequest, agent_id: int, key_id: int) -> list[Ask]:
        url = reverse("admin:marketplace_sync_agent_revoke", args=(agent_id, key_id))
        return ask(request, RevokeKey, url, "Makes this key worthless from now on.", danger=True)

    def detail(self, request: HttpRequest, row: Agent) -> dict[str, Any]:
        now = timezone.now()
        keys = list(AgentKey.objects.filter(user_id=row.user_id).order_by("-id"))
        facts = [
            ("Name", text(row.name)),
            ("Maturity", badge(row.maturity)),
            ("State", self.standing(row)),
            ("Registered", ago(row.created_at, now)),
            ("By", text(row.created_by)),
        ]
        switch = self._disable(request, row) if row.enabled else self._enable(request, row)
        issue = self._issue(request, row) if row.enabled else []
        return {
            "sections": [Section("Agent", facts)],
            "asks": [*self._maturity(request, row), *switch, *issue],
            "keys": [
                {
                    "key": key,
                    "state": badge(key.state(now)),
                    "created": moment(key.created),
                    "expires": moment(key.expiry) if key.expiry else "never",
                    "used": ago(key.last_used_at, now),
                    "revoked": moment(key.revoked_at),
                    "asks": []
                    if key.revoked_at
                    else [*self._rotate(request, row.pk, key.pk), *self._revoke(request, row.pk, key.pk)],
                }
                for key in keys
            ],
        }


def _page(agent_id: int) -> str:
    return reverse("admin:marketplace_sync_agent_change", args=(agent_id,))


def _agent(agent_id: int, key_id: int | None = None) -> Agent:
    """The agent that an address names, with that key of its own if one is named. Raises `Http404`."""
    agents = Agent.objects.filter(pk=agent_id)
    if key_id is not None:
        agents = agents.filter(user__auth_token_set=key_id)
    agent = agents.first()
    if agent is None:
        raise Http404("There is no such agent or key.")
    return agent


def _days(typed: str) -> timedelta | None:
    """A number of days, fractions allowed; `None` for nothing typed. Raises `InvalidInputError`."""
    if not typed.strip():
        return None
    try:
        return timedelta(days=float(typed))
    except (ValueError, OverflowError):
        raise InvalidInputError("expires_in", "A number of days, or nothing.") from None
