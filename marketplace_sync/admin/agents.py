"""Agents and their keys. Everybody who may manage the mirror sees them; only superusers change them."""

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

from marketplace_sync.admin.action_views import (
    ActionButton,
    ReasonForm,
    action_button,
    action_response,
    perform_action,
)
from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.formatting import badge, column, timestamp, timestamp_and_age, untrusted
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

MATURITY_CHOICES = [(level.value, level.value) for level in Maturity]


class MaturityForm(ReasonForm):
    """Asks for a maturity level and a reason."""

    maturity = forms.ChoiceField(choices=MATURITY_CHOICES, widget=UnfoldAdminSelectWidget)
    field_order: tuple[str, ...] = ("maturity", "reason")


class RegisterForm(MaturityForm):
    """Asks for the name of a new agent too."""

    name = forms.CharField(
        max_length=64,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "a-z, 0-9, . _ -"}),
    )
    field_order = ("name", "maturity", "reason")


class IssueForm(ReasonForm):
    """Asks for the lifetime of a new key and a reason."""

    expires_in = forms.CharField(
        label="Expires in days",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "placeholder": "empty: never expires"}),
    )
    field_order = ("expires_in", "reason")


@admin.register(Agent)
class AgentAdmin(ManagementAdmin):
    """The agents; each page shows the agent's keys."""

    detail_template = "admin/marketplace_sync/agent.html"
    change_list_template = "admin/marketplace_sync/agent_list.html"
    list_display = (
        column("name", untrusted),
        column("maturity", badge),
        "state_badge",
        "active_keys",
        "last_used",
        column("created_at", timestamp, "Registered"),
        column("created_by", untrusted, "Registered by", order=None),
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

    def title_of(self, row: Agent) -> str:
        return f"Agent {row.name}"

    @admin.display(description="State", ordering="enabled")
    def state_badge(self, row: Agent) -> SafeString:
        return badge("enabled") if row.enabled else badge("disabled")

    @admin.display(description="Active keys")
    def active_keys(self, row: Any) -> int:
        return int(row.active_key_count)

    @admin.display(description="Last used")
    def last_used(self, row: Any) -> SafeString | str:
        return timestamp(row.key_used_at)

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
        return super().changelist_view(request, {"buttons": self._register(request), **(extra_context or {})})

    # The views of the actions.

    def register(self, request: HttpRequest) -> HttpResponse:
        def perform() -> Any:
            return perform_action(
                request, RegisterAgent, request.POST.get("name", ""), request.POST.get("maturity", "")
            )

        def done(agent: Agent) -> HttpResponse:
            messages.success(request, f"Agent {agent.name} is registered. Issue a key so that it can call the API.")
            return HttpResponseRedirect(_page(agent.pk))

        return action_response(self, request, lambda: self._register(request), perform, done, back=reverse(HOME))

    def maturity(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        level = request.POST.get("maturity", "")
        return self._change(
            request,
            agent,
            lambda: self._maturity(request, agent),
            lambda: perform_action(request, SetMaturity, agent.name, level),
            f"The maturity of agent {agent.name} is {level}.",
        )

    def disable(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        return self._change(
            request,
            agent,
            lambda: self._disable(request, agent),
            lambda: perform_action(request, DisableAgent, agent.name),
            f"Agent {agent.name} is disabled.",
        )

    def enable(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)
        return self._change(
            request,
            agent,
            lambda: self._enable(request, agent),
            lambda: perform_action(request, EnableAgent, agent.name),
            f"Agent {agent.name} is enabled.",
        )

    def issue(self, request: HttpRequest, agent_id: int) -> HttpResponse:
        agent = _agent(agent_id)

        def perform() -> Any:
            return perform_action(request, IssueKey, agent.name, expires_in=_days(request.POST.get("expires_in", "")))

        return self._new_key(request, agent, lambda: self._issue(request, agent), perform)

    def rotate(self, request: HttpRequest, agent_id: int, key_id: int) -> HttpResponse:
        agent = _agent(agent_id, key_id)
        return self._new_key(
            request,
            agent,
            lambda: self._rotate(request, agent.pk, key_id),
            lambda: perform_action(request, RotateKey, key_id),
        )

    def revoke(self, request: HttpRequest, agent_id: int, key_id: int) -> HttpResponse:
        agent = _agent(agent_id, key_id)
        return self._change(
            request,
            agent,
            lambda: self._revoke(request, agent.pk, key_id),
            lambda: perform_action(request, RevokeKey, key_id),
            f"Key {key_id} of agent {agent.name} is revoked.",
        )

    def _change(
        self,
        request: HttpRequest,
        agent: Agent,
        button: Callable[[], list[ActionButton]],
        perform: Callable[[], Any],
        message: str,
    ) -> HttpResponse:
        def done(_: Any) -> HttpResponse:
            messages.success(request, message)
            return HttpResponseRedirect(_page(agent.pk))

        return action_response(self, request, button, perform, done, back=_page(agent.pk))

    def _new_key(
        self, request: HttpRequest, agent: Agent, button: Callable[[], list[ActionButton]], perform: Callable[[], Any]
    ) -> HttpResponse:
        def done(issued: IssuedKey) -> HttpResponse:
            # The key is only in this response: not in a session, a message or a URL. Admin pages are never cached.
            context = self.page_context(
                request, f"New key of agent {agent.name}", key=issued.key, raw=issued.raw, back=_page(agent.pk)
            )
            return TemplateResponse(request, "admin/marketplace_sync/new_key.html", context)

        return action_response(self, request, button, perform, done, back=_page(agent.pk))

    # The buttons of the actions.

    def _register(self, request: HttpRequest) -> list[ActionButton]:
        return action_button(
            request,
            RegisterAgent,
            reverse("admin:marketplace_sync_agent_register"),
            "Registers an agent under this name. It can call the API once a key is issued.",
            form=RegisterForm,
            initial={"maturity": Maturity.STUDENT},
        )

    def _maturity(self, request: HttpRequest, agent: Agent) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_maturity", args=(agent.pk,))
        effect = "The new level applies to the agent's next request."
        return action_button(request, SetMaturity, url, effect, form=MaturityForm, initial={"maturity": agent.maturity})

    def _disable(self, request: HttpRequest, agent: Agent) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_disable", args=(agent.pk,))
        return action_button(
            request, DisableAgent, url, "Refuses all of the agent's keys until it is enabled again.", danger=True
        )

    def _enable(self, request: HttpRequest, agent: Agent) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_enable", args=(agent.pk,))
        return action_button(request, EnableAgent, url, "Accepts the agent's keys again.")

    def _issue(self, request: HttpRequest, agent: Agent) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_issue", args=(agent.pk,))
        return action_button(
            request, IssueKey, url, "Issues one more key. The next page shows it once.", form=IssueForm
        )

    def _rotate(self, request: HttpRequest, agent_id: int, key_id: int) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_rotate", args=(agent_id, key_id))
        return action_button(
            request, RotateKey, url, "Issues a new key with the same lifetime and revokes this one immediately."
        )

    def _revoke(self, request: HttpRequest, agent_id: int, key_id: int) -> list[ActionButton]:
        url = reverse("admin:marketplace_sync_agent_revoke", args=(agent_id, key_id))
        return action_button(request, RevokeKey, url, "Refuses this key from now on.", danger=True)

    def detail(self, request: HttpRequest, row: Agent) -> dict[str, Any]:
        now = timezone.now()
        keys = list(AgentKey.objects.filter(user_id=row.user_id).order_by("-id"))
        facts = [
            ("Name", untrusted(row.name)),
            ("Maturity", badge(row.maturity)),
            ("State", self.state_badge(row)),
            ("Registered", timestamp_and_age(row.created_at, now)),
            ("Registered by", untrusted(row.created_by)),
        ]
        switch = self._disable(request, row) if row.enabled else self._enable(request, row)
        issue = self._issue(request, row) if row.enabled else []
        return {
            "sections": [Section("Agent", facts)],
            "buttons": [*self._maturity(request, row), *switch, *issue],
            "keys": [
                {
                    "key": key,
                    "state": badge(key.state(now)),
                    "created": timestamp(key.created),
                    "expires": timestamp(key.expiry) if key.expiry else "never",
                    "used": timestamp_and_age(key.last_used_at, now),
                    "revoked": timestamp(key.revoked_at),
                    "buttons": []
                    if key.revoked_at
                    else [*self._rotate(request, row.pk, key.pk), *self._revoke(request, row.pk, key.pk)],
                }
                for key in keys
            ],
        }


def _page(agent_id: int) -> str:
    return reverse("admin:marketplace_sync_agent_change", args=(agent_id,))


def _agent(agent_id: int, key_id: int | None = None) -> Agent:
    """Return the agent that a URL names. Raises `Http404`, also if the key is not one of its keys."""
    agents = Agent.objects.filter(pk=agent_id)
    if key_id is not None:
        agents = agents.filter(user__auth_token_set=key_id)
    agent = agents.first()
    if agent is None:
        raise Http404("There is no such agent, or the key belongs to another agent.")
    return agent


def _days(text: str) -> timedelta | None:
    """Return a number of days, fractions allowed; `None` for an empty field. Raises `InvalidInputError`."""
    if not text.strip():
        return None
    try:
        return timedelta(days=float(text))
    except (ValueError, OverflowError):
        raise InvalidInputError(
            "expires_in", "This is not a number of days. Enter one, or leave the field empty."
        ) from None
