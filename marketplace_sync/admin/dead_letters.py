"""Dead letters: input that could not be applied. Shown as inert text, and replayed or discarded, one or many."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from marketplace_sync.admin.action_views import (
    ActionButton,
    ActionClass,
    action_button,
    action_response,
    confirmation_page,
    perform_action,
    refusal_page,
)
from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.filters import parse_id
from marketplace_sync.admin.formatting import badge, byte_size, column, timestamp, timestamp_and_age, untrusted
from marketplace_sync.admin.payloads import as_hex, as_text
from marketplace_sync.admin.sites import reverse
from marketplace_sync.governance.actions import DiscardDeadLetter, ReplayDeadLetter, ReplayDeadLetters, may
from marketplace_sync.governance.actors import actor_of
from marketplace_sync.governance.dead_letters import MAX_REPLAYED_TOGETHER
from marketplace_sync.governance.errors import (
    DeniedError,
    ImpossibleError,
    InvalidInputError,
    NotPossibleError,
    TooManyRequestsError,
)
from marketplace_sync.mirror.clock import database_now
from marketplace_sync.models import Command, DeadLetter
from marketplace_sync.protocol.refusals import Code
from marketplace_sync.visible import visible

HOME = "admin:marketplace_sync_deadletter_changelist"

# Each discard is one transaction with one audit row, about 5 ms.
MAX_SELECTED = MAX_REPLAYED_TOGETHER

# Action, effect, and whether it takes something away.
ACTIONS: dict[str, tuple[ActionClass, str, bool]] = {
    "replay": (ReplayDeadLetter, "Applies the input again. Useful once the cause is fixed.", False),
    "discard": (DiscardDeadLetter, "Closes it for good. Identical input is counted, but not reopened.", True),
}


class CodeFilter(admin.SimpleListFilter):
    """Filter by code. The choices are the protocol's codes, so no query is needed for them."""

    title = "code"
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code.value, code.value) for code in Code]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(code=self.value()) if self.value() else queryset


@admin.register(DeadLetter)
class DeadLetterAdmin(ManagementAdmin):
    """The dead letters, with buttons and list actions to replay or discard them."""

    detail_template = "admin/marketplace_sync/dead_letter.html"
    list_display = (
        column("code", badge, "Code", order=None),
        "state_badge",
        column("reason", untrusted, order=None),
        "subject",
        column("count", str, "Count"),
        column("last_seen_at", timestamp, "Last seen"),
    )
    list_filter = ("state", CodeFilter, "source")
    search_fields = ("key",)
    search_help_text = "Skill id or category"
    # Django renders these in the list's menu. `changelist_view` handles the POST, also of visitors without them.
    actions = ("replay", "discard")

    @admin.display(description="State", ordering="state")
    def state_badge(self, row: DeadLetter) -> SafeString:
        return badge(row.state)

    @admin.display(description="Subject")
    def subject(self, row: DeadLetter) -> SafeString | str:
        return untrusted(" ".join(filter(None, (row.kind, row.key, row.field))))

    @admin.action(description="Replay selected dead letters")
    def replay(self, request: HttpRequest, rows: Any) -> None:
        """Give the menu its entry; `changelist_view` performs the action."""

    @admin.action(description="Discard selected dead letters")
    def discard(self, request: HttpRequest, rows: Any) -> None:
        """Give the menu its entry; `changelist_view` performs the action."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actor = actor_of(request.user)
        found: dict[str, Any] = super().get_actions(request)
        return {name: each for name, each in found.items() if name in ACTIONS and may(actor, ACTIONS[name][0])}

    def search(self, request: HttpRequest, rows: Any, text: str) -> tuple[Any, bool]:
        return (rows.filter(key=text) if text else rows), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path(f"<int:dead_letter_id>/{name}/", view(self.one), {"name": name}, f"marketplace_sync_deadletter_{name}")
            for name in ACTIONS
        ]
        return own + list(super().get_urls())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        name = request.POST.get("action", "")
        if request.method == "POST" and name in ACTIONS:
            try:
                return self.many(request, name)
            except IncorrectLookupParameters:
                raise BadRequest("The address has a filter that this list does not have. Remove it.") from None
        return super().changelist_view(request, extra_context)

    def one(self, request: HttpRequest, dead_letter_id: int, name: str) -> HttpResponse:
        """Replay or discard one dead letter."""
        action = ACTIONS[name][0]
        here = reverse("admin:marketplace_sync_deadletter_change", args=(dead_letter_id,))

        def done(result: Command | DeadLetter) -> HttpResponse:
            if isinstance(result, Command):
                return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(result.pk,)))
            messages.success(request, f"Dead letter {dead_letter_id} is discarded.")
            return HttpResponseRedirect(here)

        return action_response(
            self,
            request,
            lambda: self._button(request, name, dead_letter_id),
            lambda: perform_action(request, action, dead_letter_id),
            done,
            here,
        )

    def many(self, request: HttpRequest, name: str) -> HttpResponse:
        """Replay the selected dead letters by one command, or discard each. A confirmation page comes first."""
        action = ACTIONS[name][0]
        permitted = may(actor_of(request.user), action)
        ids = self._selected(request) if permitted else _posted_ids(request)
        if not ids:
            messages.warning(request, "No dead letter was selected, so nothing was changed. Select at least one.")
            return HttpResponseRedirect(request.get_full_path())
        if permitted and "confirmed" not in request.POST:
            return self._confirm(request, name, ids)
        try:
            if permitted and name == "replay":
                # One command for all: the number of open commands per actor is limited.
                command = perform_action(request, ReplayDeadLetters, ids)
                return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(command.pk,)))
            self._perform_on_each(request, action, ids)
        except (DeniedError, TooManyRequestsError) as error:
            return refusal_page(self, request, error)
        except NotPossibleError as error:
            messages.warning(request, error.detail)
        except InvalidInputError as error:
            messages.error(request, visible(f"{error.field}: {error.detail}"))
        return HttpResponseRedirect(reverse(HOME))

    def _confirm(self, request: HttpRequest, name: str, ids: list[int]) -> HttpResponse:
        action, explanation, danger = ACTIONS[name]
        label = f"{name.capitalize()} {_count(len(ids))}"
        hidden = [("action", name), ("confirmed", "1"), *((ACTION_CHECKBOX_NAME, str(pk)) for pk in ids)]
        (button,) = action_button(
            request, action, reverse(HOME), explanation, danger=danger, hidden=hidden, label=label
        )
        return confirmation_page(self, request, button, reverse(HOME))

    def _perform_on_each(self, request: HttpRequest, action: ActionClass, ids: list[int]) -> None:
        """Perform the action on each dead letter, and report how many were discarded and how many were not."""
        done, failed = 0, []
        for pk in ids:
            try:
                perform_action(request, action, pk)
                done += 1
            except ImpossibleError as error:
                failed.append(error.detail)
        if done:
            messages.success(request, f"{_count(done)} discarded.")
        if failed:
            messages.warning(request, visible(f"{_count(len(failed))} not discarded: {' '.join(failed[:3])}"))

    def _selected(self, request: HttpRequest) -> list[int]:
        """Return the selected rows, or all that match the list's filters; at most `MAX_SELECTED`."""
        if request.POST.get("select_across") == "1" and "confirmed" not in request.POST:
            rows = self.get_changelist_instance(request).get_queryset(request).filter(state=DeadLetter.State.OPEN)
            return list(rows.values_list("pk", flat=True)[:MAX_SELECTED])
        return _posted_ids(request)[:MAX_SELECTED]

    def _button(self, request: HttpRequest, name: str, dead_letter_id: int) -> list[ActionButton]:
        action, explanation, danger = ACTIONS[name]
        url = reverse(f"admin:marketplace_sync_deadletter_{name}", args=(dead_letter_id,))
        label = f"{name.capitalize()} dead letter"
        return action_button(request, action, url, explanation, danger=danger, label=label)

    def detail(self, request: HttpRequest, row: DeadLetter) -> dict[str, Any]:
        now = database_now()
        raw = bytes(row.head)
        is_open = row.state == DeadLetter.State.OPEN
        facts = [
            ("State", badge(row.state)),
            ("Code", badge(row.code)),
            ("Reason", untrusted(row.reason)),
            ("Field", untrusted(row.field)),
            ("Kind", untrusted(row.kind)),
            ("Skill id or category", untrusted(row.key)),
            ("Source", row.source),
            ("Count", row.count),
            ("First seen", timestamp_and_age(row.first_seen_at, now)),
            ("Last seen", timestamp_and_age(row.last_seen_at, now)),
            ("Size", byte_size(row.size) if row.size < 1024 else f"{byte_size(row.size)}, {row.size:,} bytes"),
            ("SHA-256", row.digest),
        ]
        return {
            "buttons": [each for name in ACTIONS for each in self._button(request, name, row.pk)] if is_open else [],
            "sections": [Section(f"Dead letter {row.pk}", facts)],
            "payload": as_text(raw),
            "payload_hex": as_hex(raw),
            "kept": f"the first {byte_size(len(raw))} of {byte_size(row.size)}"
            if len(raw) < row.size
            else f"complete, {byte_size(row.size)}",
        }


def _posted_ids(request: HttpRequest) -> list[int]:
    return [parse_id(value) for value in request.POST.getlist(ACTION_CHECKBOX_NAME)]


def _count(number: int) -> str:
    return f"{number:,} dead letter{'' if number == 1 else 's'}"
