"""`manage.py archiveaudit`: move old audit rows from the database into a file."""

from argparse import ArgumentParser
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from marketplace_sync.conf import ConfigError, load_config
from marketplace_sync.governance.actors import COMMAND_LINE
from marketplace_sync.governance.archive import ArchiveAudit, export, last_archivable
from marketplace_sync.governance.errors import ActionError
from marketplace_sync.management.marketplace import print_line, using_database
from marketplace_sync.visible import for_terminal


class Command(BaseCommand):
    help = "Move audit rows older than AUDIT_KEEP_DAYS into a gzipped file of JSON lines. Overwrites nothing."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--older-than-days", type=float, help="instead of AUDIT_KEEP_DAYS (365)")
        parser.add_argument("--to", type=Path, required=True, metavar="FILE.jsonl.gz", help="a new file")

    def handle(self, *, older_than_days: float | None, to: Path, **options: Any) -> None:
        age = self.age(older_than_days)
        with using_database(self):
            self.archive(age, to)

    def archive(self, older_than: timedelta, to: Path) -> None:
        up_to = last_archivable(older_than)
        if not up_to:
            print_line(self, "No audit row is old enough; no file was written.")
            return
        try:
            exported = export(up_to, to)
        except FileExistsError:
            raise CommandError(for_terminal(f"{to} already exists; name a new file.")) from None
        except OSError as error:
            raise CommandError(
                for_terminal(f"{to} could not be written, and nothing was deleted: {error.strerror}")
            ) from None
        try:
            deleted = ArchiveAudit(up_to, exported, to, actor=COMMAND_LINE, origin="command line").perform()
        except ActionError as error:
            raise CommandError(for_terminal(f"{error.detail} You can delete {to}.")) from None
        print_line(self, f"{deleted} audit rows were moved from the database to {to}.")

    def age(self, days: float | None) -> timedelta:
        try:
            age = timedelta(days=load_config(settings).audit_keep_days if days is None else days)
        except ConfigError as error:
            raise CommandError(str(error)) from None
        except (OverflowError, ValueError):
            age = timedelta(-1)
        if not timedelta(0) <= age <= timedelta(days=36_500):
            raise CommandError("--older-than-days must be between 0 and 36500.")
        return age
