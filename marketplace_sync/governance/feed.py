"""Restart the change feed after a backup was restored."""

from marketplace_sync.engine.liveness import Watch
from marketplace_sync.governance.action import Action
from marketplace_sync.governance.actors import Actor
from marketplace_sync.governance.errors import NotPossibleError
from marketplace_sync.mirror.lease import LeaseTakenError
from marketplace_sync.mirror.retention import forget_feed


class RestartFeed(Action[int]):
    """Delete the feed's rows, so that every subscriber has to list again (410); the result is the newest feed number.

    `perform` is one transaction, in which a daemon could not renew its lease. So the caller watches a lease with a
    doubtful time of renewal before `perform`.
    """

    verb, label = "restart_feed", "Restart the change feed"
    superuser_only = True

    def __init__(self, *, actor: Actor, reason: str = "", origin: str = "", watch: Watch | None = None) -> None:
        """Take what `mirror.lease.watch_doubtful_lease` returned as `watch`."""
        super().__init__(actor=actor, reason=reason, origin=origin)
        self._watch = watch

    @property
    def target(self) -> str:
        return "feed"

    def execute(self) -> int:
        try:
            newest = forget_feed(self.actor.ident, self._watch)
        except LeaseTakenError as taken:
            raise NotPossibleError(f"A daemon is running: {taken}. Stop every runsync first.") from None
        self.details = {"newest": newest}
        return newest
