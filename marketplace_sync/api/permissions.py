"""Who may read. What changes anything is decided by its action in `governance`, not here."""

from typing import Any

from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from marketplace_sync.governance.actors import Actor, actor_of, require
from marketplace_sync.governance.policy import Complexity


def actor_behind(request: Request) -> Actor:
    """The actor who asks; looked up once a request. Raises `NotAuthenticated` for nobody."""
    actor: Actor | None = getattr(request, "_actor", None) or actor_of(request.user)
    if actor is None:
        raise NotAuthenticated("Log in, or send a key: Authorization: Bearer <key>.")
    request._actor = actor  # type: ignore[attr-defined]
    return actor


class IsActor(BasePermission):
    """Anyone with a name: reading the catalogue and the change feed is LOW."""

    def has_permission(self, request: Request, view: Any) -> bool:
        require(actor_behind(request), Complexity.LOW)
        return True


class MayManage(IsActor):
    """For `/api/admin/`: reading is CRITICAL too. A POST passes, for its action decides and audits."""

    def has_permission(self, request: Request, view: Any) -> bool:
        actor = actor_behind(request)
        if request.method in SAFE_METHODS:
            require(actor, Complexity.CRITICAL)
        return True
