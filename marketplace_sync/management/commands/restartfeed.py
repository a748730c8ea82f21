"""`manage.py restartfeed`: once, after a backup was put back."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import ActionError
from marketplace_sync.governance.feed import RestartFeed
from marketplace_sync.management.marketplace import say, using_database
from marketplace_sync.mirror.lease import watch_doubtful_lease
from marketplace_sync.visible import for_terminal


class Command(BaseCommand):
    help = (
        "Begin the change feed anew, so that every follower lists again. For a database put back from a backup, "
        "which does not know what it told after that. No daemon may run."
    )
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        try:
            with using_database(self):
                newest = RestartFeed(actor=COMMAND_LINE, origin="command line", watch=watch_doubtful_lease()).perform()
        except ActionError as error:
            raise CommandError(for_terminal(error.detail)) from None
        say(self, f"The feed goes on after {newest}; whoever comes with an older number is told to list anew.")
