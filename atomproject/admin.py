"""This project's own admin: the front page, and people's accounts in the same looks, for superusers.

A project around `marketplace_sync` has its own page for accounts; the app leaves it, and the site, as they are.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm  # type: ignore[import-untyped]

from marketplace_sync.admin.action_views import request_origin
from marketplace_sync.admin.overview import INDEX_TEMPLATE
from marketplace_sync.admin.restricted_list import RestrictedListMixin
from marketplace_sync.governance.actors import MANAGE_PERMISSION, actor_of
from marketplace_sync.governance.agents import expire_commands_of, may_send_commands
from marketplace_sync.governance.audit import Outcome, record
from marketplace_sync.governance.errors import SuperuserRequiredError

admin.site.index_template = INDEX_TEMPLATE
# Rights are given to persons; the mirror has two kinds of them, which needs no groups.
admin.site.unregister((User, Group))


def _shown_permissions() -> QuerySet[Permission]:
    """Return the rights that the page offers: those on Django's own tables have no page that would look at them."""
    return Permission.objects.filter(content_type__app_label="marketplace_sync").select_related("content_type")


class PersonForm(UserChangeForm):  # type: ignore[misc]
    """Offers the mirror's rights, and keeps all others that the person has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "user_permissions" in self.fields and self.instance.pk:
            self.fields["user_permissions"].queryset = _shown_permissions()
            # Else every saving would count as a change of rights.
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
class PeopleAdmin(RestrictedListMixin, UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """Who may log in, and who may manage. An account is made inactive, not deleted: the audit names it.

    An agent's user is the agent's: it is changed by actions on the agent.
    """

    form = PersonForm
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
        ("May", {"fields": ("is_active", "is_staff", "is_superuser", "user_permissions")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(mirror_agent__isnull=True)

    # Django notes a change in a log of its own, which can be emptied. Who may do what belongs into the audit.

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
    """What was changed, and what the account may do from now on; its password is only said to be new."""
    actor = actor_of(request.user)
    assert actor is not None, "the page lets superusers in, and nobody else"
    changes = message if isinstance(message, list) else [str(message)]
    may = User.objects.get(pk=person.pk)  # as it is written, permissions included
    standing = actor_of(may)
    lost = standing is None or not may_send_commands(standing.maturity)
    withdrawn = expire_commands_of(f"user:{may.get_username()}", "Its author lost the right to it.") if lost else {}
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
            "is_active": may.is_active,
            "is_staff": may.is_staff,
            "is_superuser": may.is_superuser,
            "manages": may.has_perm(MANAGE_PERMISSION),
            **withdrawn,
        },
    )
