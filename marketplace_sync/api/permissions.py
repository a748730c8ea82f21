"""The permissions for reading. The right to change something is checked by the action in `governance`."""

from typing import Any

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from marketplace_sync.governance.actors import Actor, actor_of, require
from marketplace_sync.governance.policy import Complexity


def actor_behind(request: Request) -> Actor:
    """Return the actor of a request, looked up once per request. Raise `NotAuthenticated` if there is none."""
    actor: Actor | None = getattr(request, "_actor", None) or actor_of(request.user)
    if actor is None:
        raise NotAuthenticated("Log in, or send a key: Authorization: Bearer <key>.")
    request._actor = actor  # type: ignore[attr-defined]
    return actor


class IsActor(BasePermission):
    """Any actor may read the catalogue and the change feed, whose complexity is LOW."""

    def has_permission(self, request: Request, view: Any) -> bool:
        require(actor_behind(request), Complexity.LOW)
        return True


class MayManage(IsActor):
    """For `/api/admin/`, where reading is CRITICAL too. A POST is let through: its action decides and audits."""

    def has_permission(self, request: Request, view: Any) -> bool:
        actor = actor_behind(request)
        if request.method in SAFE_METHODS:
            require(actor, Complexity.CRITICAL)
        return True
