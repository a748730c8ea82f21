"""People's accounts: Django's own pages in the same looks, for superusers, without the agents' users."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm  # type: ignore[import-untyped]

from marketplace_sync.governance.actors import actor_of

# Rights are given to persons; the mirror has two kinds of them, which needs no groups.
admin.site.unregister((User, Group))


@admin.register(User)
class PeopleAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """Who may log in, and who may manage. An account is made inactive, not deleted: the audit names it.

    An agent's user is the agent's: it is changed by actions on the agent.
    """

    form = UserChangeForm
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
        return super().get_queryset(request).filter(agent__isnull=True)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        # Rights on Django's own tables have no page that would look at them.
        kwargs["queryset"] = Permission.objects.filter(content_type__app_label="marketplace_sync").select_related(
            "content_type"
        )
        return super().formfield_for_manytomany(db_field, request, **kwargs)

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
