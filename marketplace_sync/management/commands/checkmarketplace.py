"""`manage.py checkmarketplace`: test the connection to the marketplace, and name the setting to change."""

import asyncio
import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from marketplace_sync.conf import BY_NAME, ConfigError, SyncConfig, find_problems, load_config
from marketplace_sync.logs import redact
from marketplace_sync.management.marketplace import environment_errors, print_json, print_line
from marketplace_sync.upstream.access import Access
from marketplace_sync.upstream.checkup import Checkup, Step


class Command(BaseCommand):
    help = "Test the connection to the marketplace step by step. Exit 0, or 1 at the first step that fails."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the steps as a JSON list, at the end")

    def handle(self, *, json: bool, **options: Any) -> None:
        steps = asyncio.run(self._check(quiet=json))
        if json:
            print_json(self, [asdict(step) for step in steps])
        sys.exit(0 if steps[-1].ok else 1)

    async def _check(self, *, quiet: bool) -> list[Step]:
        first, config, access = read_settings()
        steps = [first]
        self._show(first, quiet)
        if config is not None and access is not None:
            async for step in Checkup(config, access).run():
                steps.append(step)
                self._show(step, quiet)
        return steps

    def _show(self, step: Step, quiet: bool) -> None:
        if quiet:
            return
        print_line(self, f"{'ok    ' if step.ok else 'FAILED'} {step.step:<9} {step.seconds:7.3f} s  {step.detail}")
        if step.hint:
            print_line(self, f"       {step.hint}")
        self.stdout.flush()


def read_settings() -> tuple[Step, SyncConfig | None, Access | None]:
    """Read the settings of the marketplace. Settings of the database do not matter."""
    begun = time.monotonic()
    problems = [each for each in environment_errors() if each.setting in BY_NAME or each.setting == ".env"]
    config, access = None, None
    try:
        config = load_config(settings, need_marketplace=True)
        if not config.enabled:
            hint = "Set ATOM_SAAS_ENABLED=true: no connection is made while it is false."
            return Step("settings", False, 0.0, "ATOM_SAAS_ENABLED is false.", hint), None, None
        access = Access(config, getattr(settings, "ENVIRONMENT_TOKEN", None))
    except ConfigError as error:
        problems += error.problems
    seconds = round(time.monotonic() - begun, 3)
    if problems or config is None:
        detail, hint = " ".join(each.message for each in problems), " ".join(each.hint for each in problems)
        return Step("settings", False, seconds, redact(detail), redact(hint)), None, None
    unwise = [str(each) for each in find_problems(settings) if each.setting.startswith("ATOM_SAAS_")]
    detail = " ".join([f"{config.api_url}{config.api_prefix}, {config.ws_url}", *unwise])
    return Step("settings", True, seconds, redact(detail)), config, access
