"""`manage.py restartfeed`: restart the change feed, once, after a backup was restored."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import ActionError
from marketplace_sync.governance.feed import RestartFeed
from marketplace_sync.management.marketplace import print_line, using_database
from marketplace_sync.mirror.lease import watch_doubtful_lease
from marketplace_sync.visible import for_terminal


class Command(BaseCommand):
    help = (
        "Restart the change feed, so that every client reads the catalogue again. For a database restored from a "
        "backup, which does not contain what the feed sent after the backup. No daemon may run."
    )
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        try:
            with using_database(self):
                newest = RestartFeed(actor=COMMAND_LINE, origin="command line", watch=watch_doubtful_lease()).perform()
        except ActionError as error:
            raise CommandError(for_terminal(error.detail)) from None
        print_line(
            self, f"The feed continues after {newest}. Clients with an older number have to read the catalogue again."
        )
