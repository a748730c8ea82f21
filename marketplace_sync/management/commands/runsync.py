"""`manage.py runsync`: run the daemon."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from marketplace_sync.conf import SyncConfig
from marketplace_sync.daemon.entry import OperatorError, foresee, run_daemon, run_once
from marketplace_sync.live.hints import hint_sender
from marketplace_sync.management.marketplace import configured, fail, print_line
from marketplace_sync.upstream.access import Access


class Command(BaseCommand):
    help = "Keep the local mirror in sync with the marketplace: live by WebSocket, and by full syncs over HTTP."
    # `configured` checks the settings, and prints one line per problem.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument("--once", action="store_true", help="run one full sync, then exit 0, or 1 if it failed")
        mode.add_argument("--dry-run", action="store_true", help="print what a full sync would change")
        parser.add_argument("--no-websocket", action="store_true", help="poll only, without the stream")

    def handle(self, *, once: bool, dry_run: bool, no_websocket: bool, **options: Any) -> None:
        config, access = configured(self)
        try:
            if dry_run:
                self._print_foreseen(config, access)
            elif once:
                self._print_report(config, access)
            else:
                run_daemon(config, access, stream_wanted=config.ws_enabled and not no_websocket, hint=hint_sender())
        except OperatorError as failure:
            fail(self, f"runsync: {failure}")

    def _print_report(self, config: SyncConfig, access: Access) -> None:
        report = run_once(config, access)
        done = report.progress
        print_line(
            self,
            f"{done.listed} skills listed: {done.created} created, {done.updated} updated, {done.removed} removed, "
            f"{done.unchanged} unchanged, {done.refused} refused.",
        )
        if report.refused:
            print_line(
                self,
                f"Degraded (run {report.run_id}): {report.refused} of the listed records could not be stored. "
                "See the dead letters.",
            )
        if report.held_count:
            print_line(
                self, f"{report.held_count} removals wait for approval (run {report.run_id}): {report.held_reason}."
            )

    def _print_foreseen(self, config: SyncConfig, access: Access) -> None:
        difference, counts = foresee(config, access)
        for word, keys in (
            ("create", difference.missing | difference.missing_categories),
            (
                "update",
                difference.different.keys()
                | difference.different_categories.keys()
                | difference.later
                | difference.later_categories,
            ),
            ("delete", difference.extra | difference.extra_categories),
        ):
            for key in sorted(keys):
                print_line(self, f"{word} {key}")
        for record in difference.refused:
            print_line(self, f"unreadable {record}")
        print_line(
            self,
            f"Would create {counts.get('created', 0)}, update {counts.get('updated', 0)}, "
            f"delete {counts.get('deleted', 0)} skills; {counts.get('unchanged', 0)} unchanged. Nothing was written.",
        )
