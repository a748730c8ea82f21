"""The change feed begun anew, after a backup was put back."""

from marketplace_sync.governance.action import Action
from marketplace_sync.governance.errors import NotPossible
from marketplace_sync.mirror.lease import LeaseTaken
from marketplace_sync.mirror.retention import forget_feed


class RestartFeed(Action[int]):
    """Forget the feed, so that every follower is told to list anew (410); the result is its newest number."""

    verb, label = "restart_feed", "Begin the feed anew"
    superuser_only = True

    @property
    def target(self) -> str:
        return "feed"

    def execute(self) -> int:
        try:
            newest = forget_feed(self.actor.ident)
        except LeaseTaken as taken:
            raise NotPossible(f"A daemon is at work: {taken}. Stop every runsync first.") from None
        self.details = {"newest": newest}
        return newest
