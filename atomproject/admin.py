"""The admin of this project: the overview as its index page, and the pages of user accounts, for superusers.

The app `marketplace_sync` leaves the admin site and the user pages of other projects as they are.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm  # type: ignore[import-untyped]

from marketplace_sync.admin.action_views import request_origin
from marketplace_sync.admin.base import page_title
from marketplace_sync.admin.overview import INDEX_TEMPLATE
from marketplace_sync.admin.restricted_list import RestrictedListMixin
from marketplace_sync.governance.actors import MANAGE_PERMISSION, actor_of
from marketplace_sync.governance.agents import expire_commands_of, may_send_commands
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.errors import SuperuserRequiredError

admin.site.index_template = INDEX_TEMPLATE
# The mirror has two permissions, given to people directly, so groups are not needed.
admin.site.unregister((User, Group))


def _shown_permissions() -> QuerySet[Permission]:
    """Return the permissions that the page offers: no page checks those on Django's own tables."""
    return Permission.objects.filter(content_type__app_label="marketplace_sync").select_related("content_type")


class AccountForm(UserChangeForm):  # type: ignore[misc]
    """Offers the mirror's permissions, and keeps all others that the user has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "user_permissions" in self.fields and self.instance.pk:
            self.fields["user_permissions"].queryset = _shown_permissions()
            # Otherwise each save would be recorded as a change of permissions.
            self.initial["user_permissions"] = list(_shown_permissions().filter(user=self.instance))

    def clean_user_permissions(self) -> QuerySet[Permission]:
        kept = self.instance.user_permissions.exclude(pk__in=_shown_permissions())
        return Permission.objects.filter(
            pk__in=[
                *self.cleaned_data["user_permissions"].values_list("pk", flat=True),
                *kept.values_list("pk", flat=True),
            ]
        )


@admin.register(User)
class AccountAdmin(RestrictedListMixin, UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """The accounts of people. An account is deactivated, never deleted, because audit rows name it.

    The users of agents are not listed: actions on the agent change them.
    """

    form = AccountForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    actions = None
    list_per_page = 25
    list_max_show_all = 0
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "is_superuser", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": page_title(self.model), **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(mirror_agent__isnull=True)

    # Django's own log of changes can be emptied, so changes of accounts are recorded in the audit log too.

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        _audit(request, "add_person", obj, message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        _audit(request, "change_person", obj, message)
        return super().log_change(request, obj, message)

    def _permitted(self, request: HttpRequest) -> bool:
        actor = actor_of(request.user)
        return actor is not None and actor.is_superuser

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._permitted(request)

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._permitted(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._permitted(request)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return self._permitted(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _audit(request: HttpRequest, verb: str, person: User, message: Any) -> None:
    """Record what was changed, and the account's permissions from now on. A password itself is never recorded."""
    actor = actor_of(request.user)
    assert actor is not None, "only superusers may open this page"
    changes = message if isinstance(message, list) else [str(message)]
    saved = User.objects.get(pk=person.pk)  # as stored, with permissions
    now = actor_of(saved)
    lost = now is None or not may_send_commands(now.maturity)
    reason = "Its author lost the permission to manage the mirror."
    withdrawn = expire_commands_of(f"user:{saved.get_username()}", reason) if lost else {}
    record(
        actor,
        verb=verb,
        outcome=Outcome.PERFORMED,
        actual=actor.maturity,
        required=SuperuserRequiredError.required,
        target=f"user {person.get_username()}",
        origin=request_origin(request),
        details={
            "changes": changes,
            "is_active": saved.is_active,
            "is_staff": saved.is_staff,
            "is_superuser": saved.is_superuser,
            "manages": saved.has_perm(MANAGE_PERMISSION),
            **withdrawn,
        },
    )
