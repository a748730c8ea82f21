"""`manage.py createagent`: register an agent and issue its first key."""

import json as json_text
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from marketplace_sync.governance.actions import IssueKey, RegisterAgent
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.errors import ActionError
from marketplace_sync.governance.policy import Maturity
from marketplace_sync.management.marketplace import print_line, using_database
from marketplace_sync.visible import for_terminal


class Command(BaseCommand):
    help = "Register an agent and print its key, once: only a hash is kept."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="1 to 64 of a-z, 0-9, '.', '_' and '-'")
        parser.add_argument("--maturity", required=True, type=str.upper, choices=[str(level) for level in Maturity])
        parser.add_argument("--expires-days", type=float, help="days until the key expires (never)")
        parser.add_argument("--json", action="store_true", help='{"agent", "maturity", "key"}')

    def handle(self, *, name: str, maturity: str, expires_days: float | None, json: bool, **options: Any) -> None:
        try:
            expires_in = None if expires_days is None else timedelta(days=expires_days)
        except (OverflowError, ValueError):
            raise CommandError("--expires-days is not a possible number of days.") from None
        try:
            with using_database(self):
                # Both are checked before either is performed.
                register = RegisterAgent(name, maturity, actor=COMMAND_LINE, origin="command line")
                issue = IssueKey(name, expires_in, actor=COMMAND_LINE, origin="command line")
                register.perform()
                raw = issue.perform().raw
        except ActionError as error:
            raise CommandError(for_terminal(error.detail)) from None
        if json:
            self.stdout.write(json_text.dumps({"agent": name, "maturity": maturity, "key": raw}))
        else:
            print_line(self, f"Agent {name} ({maturity}). Its key is shown only now:")
            self.stdout.write(raw)
