"""What could not be applied: looked at safely, replayed or discarded, one by one and many at once."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from marketplace_sync.admin.acting import Ask, Kind, act, answer, ask, ask_page, refusal
from marketplace_sync.admin.base import ManagementAdmin, Section
from marketplace_sync.admin.filters import number
from marketplace_sync.admin.payloads import as_hex, as_text
from marketplace_sync.admin.present import ago, badge, column, moment, size, text
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

# A discard is a decision of its own, with its audit row, in its own transaction: some 5 ms.
AT_ONCE = MAX_REPLAYED_TOGETHER

KINDS: dict[str, tuple[Kind, str, bool]] = {
    "replay": (ReplayDeadLetter, "Applies once more what was refused; worth it when the cause is gone.", False),
    "discard": (DiscardDeadLetter, "Puts it aside for good. When the same comes again it is only counted.", True),
}


class CodeFilter(admin.SimpleListFilter):
    """By the reason's code; the list of them is the protocol's, so nothing has to be counted."""

    title = "code"
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(code.value, code.value) for code in Code]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(code=self.value()) if self.value() else queryset


@admin.register(DeadLetter)
class DeadLetterAdmin(ManagementAdmin):
    detail_template = "admin/marketplace_sync/dead_letter.html"
    list_display = (
        column("code", badge, "Code", order=None),
        "standing",
        column("reason", text, order=None),
        "about",
        column("count", str, "Times"),
        column("last_seen_at", moment, "Last seen"),
    )
    list_filter = ("state", CodeFilter, "source")
    search_fields = ("key",)
    search_help_text = "Skill id or category"
    # What Django's own dispatch knows; the post itself is taken in `changelist_view`, whoever it is from.
    actions = ("replay", "discard")

    @admin.display(description="State", ordering="state")
    def standing(self, row: DeadLetter) -> SafeString:
        return badge(row.state)

    @admin.display(description="About")
    def about(self, row: DeadLetter) -> SafeString | str:
        return text(" ".join(filter(None, (row.kind, row.key, row.field))))

    @admin.action(description="Replay the selected")
    def replay(self, request: HttpRequest, rows: Any) -> None:
        """Its name and description; see `changelist_view`."""

    @admin.action(description="Discard the selected")
    def discard(self, request: HttpRequest, rows: Any) -> None:
        """Its name and description; see `changelist_view`."""

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actor = actor_of(request.user)
        found: dict[str, Any] = super().get_actions(request)
        return {name: each for name, each in found.items() if name in KINDS and may(actor, KINDS[name][0])}

    def search(self, request: HttpRequest, rows: Any, text: str) -> tuple[Any, bool]:
        return (rows.filter(key=text) if text else rows), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        own = [
            path(f"<int:dead_letter_id>/{name}/", view(self.one), {"name": name}, f"marketplace_sync_deadletter_{name}")
            for name in KINDS
        ]
        return own + list(super().get_urls())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        name = request.POST.get("action", "")
        if request.method == "POST" and name in KINDS:
            try:
                return self.many(request, name)
            except IncorrectLookupParameters:
                raise BadRequest("A filter in the address is none that this list has.") from None
        return super().changelist_view(request, extra_context)

    def one(self, request: HttpRequest, dead_letter_id: int, name: str) -> HttpResponse:
        """Replay or discard one."""
        kind = KINDS[name][0]
        here = reverse("admin:marketplace_sync_deadletter_change", args=(dead_letter_id,))

        def done(result: Command | DeadLetter) -> HttpResponse:
            if isinstance(result, Command):
                return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(result.pk,)))
            messages.success(request, f"Dead letter {dead_letter_id} is discarded.")
            return HttpResponseRedirect(here)

        return answer(
            self,
            request,
            lambda: self._ask(request, name, dead_letter_id),
            lambda: act(request, kind, dead_letter_id),
            done,
            here,
        )

    def many(self, request: HttpRequest, name: str) -> HttpResponse:
        """Replay what was ticked by one command, or discard each by itself; first a page asks why."""
        kind, explain, danger = KINDS[name]
        permitted = may(actor_of(request.user), kind)
        ids = (
            self._ticked(request)
            if permitted
            else [number(value) for value in request.POST.getlist(ACTION_CHECKBOX_NAME)]
        )
        if not ids:
            messages.warning(request, "Nothing was ticked, so nothing was done.")
            return HttpResponseRedirect(request.get_full_path())
        if permitted and "confirmed" not in request.POST:
            hidden = [("action", name), ("confirmed", "1"), *((ACTION_CHECKBOX_NAME, str(pk)) for pk in ids)]
            (asked,) = ask(
                request, kind, reverse(HOME), f"{len(ids)} dead letters. {explain}", danger=danger, hidden=hidden
            )
            return ask_page(self, request, asked, reverse(HOME))
        done, failed = 0, []
        try:
            if permitted and name == "replay":
                # One command for all: an actor has few open ones at a time.
                command = act(request, ReplayDeadLetters, ids)
                return HttpResponseRedirect(reverse("admin:marketplace_sync_command_change", args=(command.pk,)))
            for pk in ids:
                try:
                    act(request, kind, pk)
                    done += 1
                except ImpossibleError as fault:
                    failed.append(fault.detail)
        except (DeniedError, TooManyRequestsError) as denial:
            return refusal(self, request, denial)
        except NotPossibleError as fault:
            messages.warning(request, fault.detail)
            return HttpResponseRedirect(reverse(HOME))
        except InvalidInputError as fault:
            messages.error(request, visible(f"{fault.field}: {fault.detail}"))
            return HttpResponseRedirect(reverse(HOME))
        if done:
            messages.success(request, f"{done} dead letters discarded.")
        if failed:
            messages.warning(request, visible(f"{len(failed)} could not be: {' '.join(failed[:3])}"))
        return HttpResponseRedirect(reverse(HOME))

    def _ticked(self, request: HttpRequest) -> list[int]:
        """The rows that were ticked, or all that the list's filters leave, `AT_ONCE` at most."""
        if request.POST.get("select_across") == "1" and "confirmed" not in request.POST:
            rows = self.get_changelist_instance(request).get_queryset(request).filter(state=DeadLetter.State.OPEN)
            return list(rows.values_list("pk", flat=True)[:AT_ONCE])
        return [number(value) for value in request.POST.getlist(ACTION_CHECKBOX_NAME)[:AT_ONCE]]

    def _ask(self, request: HttpRequest, name: str, dead_letter_id: int) -> list[Ask]:
        kind, explain, danger = KINDS[name]
        url = reverse(f"admin:marketplace_sync_deadletter_{name}", args=(dead_letter_id,))
        return ask(request, kind, url, explain, danger=danger)

    def detail(self, request: HttpRequest, row: DeadLetter) -> dict[str, Any]:
        now = database_now()
        raw = bytes(row.head)
        is_open = row.state == DeadLetter.State.OPEN
        facts = [
            ("State", badge(row.state)),
            ("Code", badge(row.code)),
            ("Reason", text(row.reason)),
            ("Field", text(row.field)),
            ("Kind", text(row.kind)),
            ("Skill id or category", text(row.key)),
            ("Came by", row.source),
            ("Times", row.count),
            ("First seen", ago(row.first_seen_at, now)),
            ("Last seen", ago(row.last_seen_at, now)),
            ("Size", f"{size(row.size)}, {row.size} bytes"),
            ("SHA-256", row.digest),
        ]
        return {
            "asks": [each for name in KINDS for each in self._ask(request, name, row.pk)] if is_open else [],
            "sections": [Section(f"Dead letter {row.pk}", facts)],
            "payload": as_text(raw),
            "payload_hex": as_hex(raw),
            "kept": f"the first {size(len(raw))} of {size(row.size)}"
            if len(raw) < row.size
            else f"all of it, {size(row.size)}",
        }
