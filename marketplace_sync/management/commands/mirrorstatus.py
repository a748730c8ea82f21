"""`manage.py mirrorstatus`: how the mirror stands, in ten lines."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from marketplace_sync.management.marketplace import fail, say, say_json
from marketplace_sync.monitoring.judgement import configured
from marketplace_sync.monitoring.report import Health
from marketplace_sync.monitoring.summary import NoSummaryError, summary

EXIT = {Health.HEALTHY: 0, Health.DEGRADED: 1, Health.UNHEALTHY: 2}


class Command(BaseCommand):
    help = "Show state, age, open work and the cause of trouble. Exit 0 when healthy, 1 degraded, 2 unhealthy."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="all of it as JSON")

    def handle(self, *, as_json: bool, **options: Any) -> None:
        try:
            found = summary(configured())
        except NoSummaryError as error:
            if as_json:
                say_json(self, {"status": str(Health.UNHEALTHY), "error": str(error)})
                sys.exit(EXIT[Health.UNHEALTHY])
            fail(self, f"mirrorstatus: {error}", status=EXIT[Health.UNHEALTHY])
        if as_json:
            say_json(self, found.as_json())
        else:
            for line in found.lines():
                say(self, line)
        sys.exit(EXIT[found.report.status])
