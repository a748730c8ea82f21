"""`manage.py mirrorstatus`: show the state of the mirror in ten lines."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from marketplace_sync.management.marketplace import fail, print_json, print_line
from marketplace_sync.monitoring.judgement import configured
from marketplace_sync.monitoring.report import Health
from marketplace_sync.monitoring.summary import NoSummaryError, summary

EXIT = {Health.HEALTHY: 0, Health.DEGRADED: 1, Health.UNHEALTHY: 2}


class Command(BaseCommand):
    help = "Show the state, the age, open work and the cause of problems. Exit 0: healthy, 1: degraded, 2: unhealthy."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print everything as JSON")

    def handle(self, *, as_json: bool, **options: Any) -> None:
        try:
            found = summary(configured())
        except NoSummaryError as error:
            if as_json:
                print_json(self, {"status": str(Health.UNHEALTHY), "error": str(error)})
                sys.exit(EXIT[Health.UNHEALTHY])
            fail(self, f"mirrorstatus: {error}", status=EXIT[Health.UNHEALTHY])
        if as_json:
            print_json(self, found.as_json())
        else:
            for line in found.lines():
                print_line(self, line)
        sys.exit(EXIT[found.report.status])
