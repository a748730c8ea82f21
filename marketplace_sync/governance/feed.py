"""The change feed begun anew, after a backup was put back."""

from marketplace_sync.engine.liveness import Watch
from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.mirror.lease import LeaseTakenError
from marketplace_sync.mirror.retention import forget_feed


class RestartFeed(Action[int]):
    """Forget the feed, so that every follower is told to list anew (410); the result is its newest number.

    `perform` is one transaction, in which a daemon could not renew its lease. So a lease whose renewal is not
    believable is watched before that, by whoever makes the action.
    """

    verb, label = "restart_feed", "Begin the feed anew"
    superuser_only = True

    def __init__(self, *, actor: Actor, reason: str = "", origin: str = "", watch: Watch | None = None) -> None:
        """`watch`: of `mirror.lease.watch_doubtful_lease`."""
        super().__init__(actor=actor, reason=reason, origin=origin)
        self._watch = watch

    @property
    def target(self) -> str:
        return "feed"

    def execute(self) -> int:
        try:
            newest = forget_feed(self.actor.ident, self._watch)
        except LeaseTakenError as taken:
            raise NotPossibleError(f"A daemon is at work: {taken}. Stop every runsync first.") from None
        self.details = {"newest": newest}
        return newest
